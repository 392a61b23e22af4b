package stream_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/stream"
)

// smallWindow is the least that gRPC offers: a subscriber that does not read
// holds up its stream after 64 KiB.
func smallWindow() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithStaticStreamWindowSize(64 << 10), grpc.WithStaticConnWindowSize(64 << 10)}
}

// heavy is a version of a pod that takes some KiB.
func heavy(uid string, version int) relation.Object {
	return pod("node-1", uid, fmt.Sprint(version), strings.Repeat("x", 4<<10))
}

// TestStuckSubscriber: one that stops reading delays nobody, holds no more than
// its node has, and has the right view when it reads again.
func TestStuckSubscriber(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	const pods, rounds = 100, 20
	stuck := watch(t, conn(t, s.address, smallWindow()...), "node-1", "Pod")
	reader := s.watch(t, "node-1", "Pod")
	eventually(t, "both subscribed", func() bool { return s.metric(t, "metawire_stream_subscribers") == 2 })
	uid := func(i int) string { return fmt.Sprintf("pod-%d", i) }
	for round := range rounds { // some 8 MiB of events
		for i := range pods {
			s.hub.Apply(heavy(uid(i), round))
			if got := reader.next(t); !strings.HasSuffix(got, " Pod "+uid(i)) {
				t.Fatalf("the one that reads received %q, want %s", got, uid(i))
			}
			if n := s.metric(t, "metawire_stream_pending_objects_max"); n > pods {
				t.Fatalf("%v objects wait for one subscriber of a node with %d", n, pods)
			}
		}
	}
	if s.metric(t, "metawire_stream_pending_objects") == 0 {
		t.Fatal("nothing waits: the subscriber was not stuck, and this test showed nothing")
	}
	for i := range pods / 2 { // what left while it did not read
		s.hub.Delete(relation.Pod, uid(i))
		reader.expect(t, "Delete Pod "+uid(i))
	}
	table, events := map[string]string{}, 0
	for want := view(t, s, "node-1"); !maps.Equal(table, want); events++ {
		e, err := stuck.recv()
		if err != nil {
			t.Fatalf("%v; table (-want +got):\n%s", err, cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(table))))
		}
		apply(table, e)
	}
	if events > 4*pods {
		t.Errorf("%d events until it was right, of some %d: the states between were not left out", events, pods*rounds)
	}
}

// view is what a new subscriber is told of the node's pods.
func view(t *testing.T, s *served, node string) map[string]string {
	t.Helper()
	sub, table := s.watch(t, node, "Pod"), map[string]string{}
	defer sub.cancel()
	for n := s.metric(t, "metawire_index_objects", "Pod"); float64(len(table)) < n; {
		e, err := sub.recv()
		if err != nil {
			t.Fatal(err)
		}
		apply(table, e)
	}
	return table
}

// apply does with an event what the plugin does.
func apply(table map[string]string, e *metadata.Event) {
	if e.Reason == metadata.Delete {
		delete(table, e.Uid)
	} else {
		table[e.Uid] = e.GetMeta()
	}
}

// TestStuckSubscriberDoesNotHoldUpTheEnd: the drain ends by force.
func TestStuckSubscriberDoesNotHoldUpTheEnd(t *testing.T) {
	s := serve(t, stream.Options{Stop: 500 * time.Millisecond}, nil)
	for i := range 200 {
		s.hub.Apply(heavy(fmt.Sprint(i), 0))
	}
	watch(t, conn(t, s.address, smallWindow()...), "node-1", "Pod")
	reader := s.watch(t, "node-1", "Pod")
	for range 200 {
		reader.next(t)
	}
	s.drain()
	if _, code := reader.ending(); code != codes.Aborted {
		t.Errorf("the one that reads ended with %s, want ABORTED", code)
	}
	if err := s.returned(t); err != nil {
		t.Error(err)
	}
	if !s.logs.contain("by force") {
		t.Error("the subscriber was not stuck, and this test showed nothing")
	}
}

// TestVanishedSubscriber: one that goes without a FIN is found by keepalive;
// one that is merely silent is not taken for it.
func TestVanishedSubscriber(t *testing.T) {
	s := serve(t, stream.Options{Keepalive: time.Second, KeepaliveTimeout: time.Second}, nil)
	cable := newCable(t, s.address)
	s.hub.Apply(pod("node-1", "p"))
	vanished := watch(t, conn(t, cable.address), "node-1", "Pod")
	vanished.expect(t, "Create Pod p")
	silent := s.watch(t, "node-1", "Pod")
	silent.expect(t, "Create Pod p")
	cable.cut()
	eventually(t, "the subscriber is removed", func() bool { return s.metric(t, "metawire_stream_subscribers") == 1 })
	s.hub.Apply(pod("node-1", "p", "2"))
	silent.expect(t, "Update Pod p")
	if n := s.metric(t, "metawire_stream_endings_total", "client_gone"); n != 1 {
		t.Errorf("%v streams counted as client_gone, want 1", n)
	}
}

// cable is a connection that can be cut: nothing passes any more and neither
// end is told.
type cable struct {
	address string
	dead    chan struct{}
	once    sync.Once
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{address: l.Addr().String(), dead: make(chan struct{})}
	var ends sync.WaitGroup
	ends.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
			if err != nil {
				_ = near.Close()
				return
			}
			ends.Go(func() { c.carry(far, near) })
			ends.Go(func() { c.carry(near, far) })
			t.Cleanup(func() { _, _ = near.Close(), far.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.cut()
	})
	return c
}

// carry copies until the cable is cut; it closes neither end.
func (c *cable) carry(to io.Writer, from io.Reader) {
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-c.dead:
		default:
			_, _ = to.Write(buf[:n])
		}
	}
}

func (c *cable) cut() { c.once.Do(func() { close(c.dead) }) }
