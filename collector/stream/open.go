package stream

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metawire/metawire/collector/fanout"
)

// Subscriber is a stream that is being served.
type Subscriber struct {
	Leave

	Address netip.Addr // the peer's, the zero value if it has none
	Since   time.Time
	Sent    int64 // events that were handed to gRPC
	Pending int   // objects that it is yet to be told of

	Plaintext bool // it came by the listener without TLS
}

// Unserved counts the streams that are open without being served: those that
// name no node, and those of which it is not known yet whether they may be.
type Unserved struct{ Unnamed, Undecided int }

// open holds the streams that are being served. Sending takes no lock of it.
type open struct {
	mu  sync.Mutex
	all map[*serving]struct{}
}

// serving is a stream that is being served.
type serving struct {
	leave   Leave
	address netip.Addr
	since   time.Time
	sub     *fanout.Subscriber

	plaintext bool
	sent      atomic.Int64
}

func (o *open) enter(sub *fanout.Subscriber, l Leave, a netip.Addr, plaintext bool) *serving {
	s := &serving{leave: l, address: a, since: time.Now(), sub: sub, plaintext: plaintext}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[*serving]struct{}{}
	}
	o.all[s] = struct{}{}
	return s
}

func (o *open) leave(s *serving) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, s)
}

// of returns the streams of a node, or of all.
func (o *open) of(node string) (all []*serving) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for s := range o.all {
		if node == "" || s.leave.Node == node {
			all = append(all, s)
		}
	}
	return all
}

// Subscribers returns who subscribes to the node, of all nodes if that is empty:
// by node, the oldest first, at most n; left is how many more there are. Any
// goroutine may call it.
func (s *Server) Subscribers(node string, n int) (all []Subscriber, left int, u Unserved) {
	streams := s.open.of(node)
	slices.SortFunc(streams, func(a, b *serving) int {
		return cmp.Or(cmp.Compare(a.leave.Node, b.leave.Node), a.since.Compare(b.since))
	})
	left = max(0, len(streams)-n)
	for _, o := range streams[:len(streams)-left] {
		// The hub's lock is taken anew for each: a long list delays no event.
		all = append(all, Subscriber{Leave: o.leave, Address: o.address, Since: o.since, Sent: o.sent.Load(), Pending: o.sub.Pending(), Plaintext: o.plaintext})
	}
	return all, left, Unserved{Unnamed: s.unnamed.now(), Undecided: s.undecided.now()}
}
