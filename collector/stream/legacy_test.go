package stream_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/collector/stream"
)

// TestLegacySubscribers: who uses the second listener is counted for as long as
// the stream is open, and named; who uses the first is not.
func TestLegacySubscribers(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	s.hub.Apply(namespace("uid-n"))
	const legacy, all = "metawire_legacy_subscribers", "metawire_stream_subscribers"
	watch(t, conn(t, s.address), "node-1")
	old := watch(t, conn(t, s.second), "node-2")
	eventually(t, "both subscribed", func() bool { return s.metric(t, all) == 2 })
	if n := s.metric(t, legacy); n != 1 {
		t.Errorf("%s is %v, want 1", legacy, n)
	}
	plaintext := map[string]bool{}
	told, _, _ := s.server.Subscribers("", 10)
	for _, o := range told {
		plaintext[o.Node] = o.Plaintext
	}
	if d := cmp.Diff(map[string]bool{"node-1": false, "node-2": true}, plaintext); d != "" {
		t.Errorf("without TLS (-want +got):\n%s", d)
	}
	old.cancel()
	eventually(t, "one is gone", func() bool { return s.metric(t, all) == 1 })
	eventually(t, "none is counted", func() bool { return s.metric(t, legacy) == 0 })
}
