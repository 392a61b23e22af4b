package main

import (
	"bytes"
	"context"
	"net"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/internal/subscriber/subscribertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	namespace = &metadata.Event{Reason: metadata.Create, Uid: "n1", Kind: "Namespace"}
	pod       = &metadata.Event{Reason: metadata.Create, Uid: "p1", Kind: "Pod"}
	service   = &metadata.Event{Reason: metadata.Create, Uid: "s1", Kind: "Service"}
	podGone   = &metadata.Event{Reason: metadata.Delete, Uid: "p0", Kind: "Pod"}
)

// probe runs the command line and returns its log.
func probe(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := run(ctx, append([]string{"stream"}, args...), &out)
	return out.String(), err
}

func TestPasses(t *testing.T) {
	addr := subscribertest.Serve(t, subscribertest.Hold(podGone, service, namespace, pod))
	log, err := probe(t.Context(), "--addr", addr, "--node", "worker-1", "--pod-uid", "p1", "--timeout", "1m")
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?s)^probe \S+: node "worker-1" at ` + addr + `, at most 1m0s\nconnected in \S+\nPASS: received 1 Namespace, 1 Pod, 1 Service in \S+\n$`)
	if !want.MatchString(log) {
		t.Errorf("want %s, got\n%s", want, log)
	}
}

func TestPassesWithTLS(t *testing.T) {
	withTLS, ca := subscribertest.TLS(t, "collector.test")
	addr := subscribertest.Serve(t, subscribertest.Hold(namespace, pod), withTLS)
	if log, err := probe(t.Context(), "--addr", addr, "--node", "worker-1", "--tls-ca", ca, "--tls-server-name", "collector.test"); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

func TestComesBackAfterADrain(t *testing.T) {
	addr := subscribertest.Serve(t, func(n int, s *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error {
		if n == 0 {
			return status.Error(codes.Aborted, "draining")
		}
		return subscribertest.Hold(namespace, pod)(n, s, out)
	})
	log, err := probe(t.Context(), "--addr", addr, "--node", "worker-1")
	if err != nil || !strings.Contains(log, `Aborted: "draining"`) {
		t.Errorf("%v, want that the stream was drained in\n%s", err, log)
	}
}

func TestFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	refusing := subscribertest.Serve(t, func(int, *metadata.Selector, grpc.ServerStreamingServer[metadata.Event]) error {
		return status.Error(codes.PermissionDenied, "not your node")
	})
	serve := func(events ...*metadata.Event) string { return subscribertest.Serve(t, subscribertest.Hold(events...)) }
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"nothing arrives":     {[]string{"--addr", serve()}, `received nothing within 300ms; wanted a Namespace and a Pod of node "worker-1"`},
		"no namespace":        {[]string{"--addr", serve(pod)}, "received 1 Pod within"},
		"no pod":              {[]string{"--addr", serve(namespace)}, "received 1 Namespace within"},
		"only a deleted pod":  {[]string{"--addr", serve(namespace, podGone)}, "received 1 Namespace within"},
		"another pod":         {[]string{"--addr", serve(namespace, pod), "--pod-uid", "p2"}, "Pod p2"},
		"nobody listens":      {[]string{"--addr", l.Addr().String()}, "not connected within 300ms: connect to " + l.Addr().String()},
		"refused":             {[]string{"--addr", refusing}, "refused by the collector"},
		"no address":          {nil, "--addr and --node are required"},
		"no node":             {[]string{"--addr", refusing, "--node", ""}, "--addr and --node are required"},
		"a port that is none": {[]string{"--addr", "localhost"}, "is not HOST:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			log, err := probe(t.Context(), append([]string{"--node", "worker-1", "--timeout", "300ms"}, tc.args...)...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
			if strings.Contains(log, "PASS") {
				t.Errorf("passed:\n%s", log)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr := subscribertest.Serve(t, func(n int, s *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error {
		cancel()
		return subscribertest.Hold()(n, s, out)
	})
	if _, err := probe(ctx, "--addr", addr, "--node", "worker-1"); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error %v, want that it was interrupted", err)
	}
}
