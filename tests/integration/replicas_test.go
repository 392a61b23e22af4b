package integration_test

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metawire/metawire/tests/falco/plugin"
)

// TestReplicas: the replica that serves goes while objects change and are
// deleted; within 3 s of the end of its stream, or of the next attempt that its
// own back-off allows, the subscriber has the API's view from the other one.
func TestReplicas(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		// when the clock starts, for a subscriber whose stream ended
		from func(s *plugin.Client) time.Time
		code codes.Code
	}{
		"drained": {syscall.SIGTERM, func(s *plugin.Client) time.Time { return s.Ends()[0].At }, codes.Aborted},
		"killed":  {syscall.SIGKILL, func(s *plugin.Client) time.Time { return s.Attempts()[1] }, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replicas := []*collector{started(t, setup{kubeconfig: plane.Kubeconfig()}), started(t, setup{kubeconfig: plane.Kubeconfig()})}
			var serves atomic.Int32 // as a Service that has one endpoint
			target := func() string { return replicas[serves.Load()].stream }
			changes := newChanges(t)
			changes.make(t.Context(), 100)
			subscribers := changes.subscribers(t, target)
			converge(t, subscribers)
			stop := changes.background(t)
			serves.Store(1)
			replicas[0].signal(t, c.signal)
			for node, s := range subscribers {
				eventually(t, func() error {
					if n := len(s.Attempts()); n < 2 {
						return fmt.Errorf("node %s: %d attempts", node, n)
					}
					return nil
				})
				if ends := s.Ends(); ends[0].Code != c.code {
					t.Errorf("node %s: the stream ended with %s, want %s", node, ends[0].Code, c.code)
				}
			}
			stop()
			truth, err := readAPI(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for node, s := range subscribers {
				eventually(t, func() error {
					if diff := cmp.Diff(truth.view(node), s.Table(), protocmp.Transform()); diff != "" {
						return fmt.Errorf("node %s (-API +subscriber):\n%s", node, diff)
					}
					return nil
				})
				if took := time.Since(c.from(s)); took > 3*time.Second {
					t.Errorf("node %s: right after %s, want within 3s", node, took)
				}
			}
		})
	}
}
