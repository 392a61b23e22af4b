package stream_test

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/metawire/metawire/collector/stream"
)

// TestLinger: a newcomer whom the Service still sends here after the drain
// began is served, and sent away like the others.
func TestLinger(t *testing.T) {
	s := serve(t, stream.Options{Linger: 2 * time.Second, Stop: patience}, nil)
	s.hub.Apply(pod("node-1", "p"))
	s.drain()
	eventually(t, "the drain begins", func() bool { return s.logs.contain("draining") })
	newcomer := s.watch(t, "node-1", "Pod")
	newcomer.expect(t, "Create Pod p")
	s.hub.Apply(pod("node-1", "p", "2"))
	newcomer.expect(t, "Update Pod p")
	if _, code := newcomer.ending(); code != codes.Aborted {
		t.Errorf("the newcomer's stream ended with %s", code)
	}
	if err := s.returned(t); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// TestDrain: every stream ends with ABORTED, and so that they come back one
// after the other; Serve returns nil and leaves nothing open.
func TestDrain(t *testing.T) {
	s := serve(t, stream.Options{Stop: patience}, nil)
	s.hub.Apply(pod("node-1", "p"))
	const streams = 50
	c := conn(t, s.address)
	subs := make([]*subscription, streams)
	for i := range subs {
		subs[i] = watch(t, c, "node-1", "Pod")
		subs[i].expect(t, "Create Pod p")
	}
	s.drain()
	ends := make([]time.Time, streams)
	var all sync.WaitGroup
	for i, sub := range subs {
		all.Go(func() {
			if events, code := sub.ending(); code != codes.Aborted || len(events) != 0 {
				t.Errorf("stream %d: %d events and %s, want ABORTED alone", i, len(events), code)
			}
			ends[i] = time.Now()
		})
	}
	all.Wait()
	if err := s.returned(t); err != nil {
		t.Errorf("Serve: %v", err)
	}
	// 50 streams at 20 ms each: at random over 1 s.
	if spread := slices.MaxFunc(ends, time.Time.Compare).Sub(slices.MinFunc(ends, time.Time.Compare)); spread < 500*time.Millisecond {
		t.Errorf("all streams ended within %s: their subscribers would all come back at once", spread)
	}
	if n := s.metric(t, "metawire_stream_endings_total", "drained"); n != streams {
		t.Errorf("%v streams counted as drained, want %d", n, streams)
	}
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.address); err == nil {
		t.Error("still listening after the drain")
	}
}

// TestDrainWithoutSubscribers returns once it has lingered.
func TestDrainWithoutSubscribers(t *testing.T) {
	s := serve(t, stream.Options{Stop: time.Hour}, nil)
	s.drain()
	if err := s.returned(t); err != nil {
		t.Error(err)
	}
}

// TestSubscribersBeforeTheSyncAreDrainedToo: one that waits for the first sync
// is sent away like any other.
func TestSubscribersBeforeTheSyncAreDrainedToo(t *testing.T) {
	s := serve(t, stream.Options{Stop: time.Hour}, make(chan struct{}))
	sub := s.watch(t, "node-1", "Pod")
	eventually(t, "subscribed", func() bool { return s.logs.contain("subscribed") })
	s.drain()
	if _, code := sub.ending(); code != codes.Aborted {
		t.Errorf("the stream ended with %s, want ABORTED", code)
	}
	if err := s.returned(t); err != nil {
		t.Error(err)
	}
}

// TestMaxAge ends streams with ABORTED in the second half of their age, those
// that wait for the sync or have nothing to receive too.
func TestMaxAge(t *testing.T) {
	const maxAge = time.Second
	for name, c := range map[string]struct {
		synced <-chan struct{}
		node   string
	}{
		"served":          {closed(), "node-1"},
		"before the sync": {make(chan struct{}), "node-1"},
		"unnamed":         {closed(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stream.Options{MaxAge: maxAge}, c.synced)
			s.hub.Apply(pod("node-1", "p"))
			began := time.Now()
			if _, code := s.watch(t, c.node, "Pod").ending(); code != codes.Aborted {
				t.Errorf("ended with %s, want ABORTED", code)
			}
			if age := time.Since(began); age < maxAge/2 {
				t.Errorf("ended after %s, before half of %s", age, maxAge)
			}
			if n := s.metric(t, "metawire_stream_endings_total", "max_age"); n != 1 {
				t.Errorf("%v streams counted as max_age, want 1", n)
			}
		})
	}
}

// TestBusyStreamsEndToo: a stream that always has something to send ends in a
// drain like any other.
func TestBusyStreamsEndToo(t *testing.T) {
	s := serve(t, stream.Options{Burst: 1, Rate: 10, Stop: time.Hour}, nil)
	node(s.hub, 600, 0) // for a minute
	sub := s.watch(t, "node-1", pluginKinds()...)
	sub.next(t)
	s.drain()
	if _, code := sub.ending(); code != codes.Aborted {
		t.Errorf("the stream ended with %s, want ABORTED", code)
	}
	if err := s.returned(t); err != nil {
		t.Error(err)
	}
}
