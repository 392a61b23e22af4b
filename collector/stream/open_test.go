package stream_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/stream"
)

// TestSubscribers: who is served, since when, and how far; those who wait or name
// no node are counted, and who is refused or has gone is not among them.
func TestSubscribers(t *testing.T) {
	a := newAuthorizer()
	s := serve(t, stream.Options{Authorizer: a}, nil)
	for i := range 3 {
		s.hub.Apply(pod("node-1", fmt.Sprint("p", i)))
	}
	began := time.Now()
	refused := s.watch(t, "node-1", "Pod")
	<-a.asked
	a.answers <- status.Error(codes.PermissionDenied, "no")
	refused.ending()
	served := s.watch(t, "node-1/pod/mac", "Pod")
	<-a.asked
	s.watch(t, "", "Pod")
	eventually(t, "one waits, and one names no node", func() bool {
		all, left, u := s.server.Subscribers("", 10)
		return len(all) == 0 && left == 0 && u == stream.Unserved{Unnamed: 1, Undecided: 1}
	})
	a.answers <- nil
	for range 3 {
		served.next(t)
	}
	eventually(t, "one is served", func() bool {
		all, _, _ := s.server.Subscribers("node-1", 10)
		return len(all) == 1 && all[0].Node == "node-1" && all[0].Pod == "p" && all[0].By == "ticket" && all[0].Address.IsLoopback() &&
			all[0].Since.After(began) && all[0].Sent == 3 && all[0].Pending == 0
	})
	if all, _, _ := s.server.Subscribers("node-2", 10); len(all) > 0 {
		t.Errorf("of another node: %+v", all)
	}
	if all, left, _ := s.server.Subscribers("", 0); len(all) > 0 || left != 1 {
		t.Errorf("%d left out of a list of none, which holds %+v", left, all)
	}
	served.cancel()
	eventually(t, "it has gone", func() bool {
		all, _, _ := s.server.Subscribers("", 10)
		return len(all) == 0
	})
}
