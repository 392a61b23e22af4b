package fanout

import (
	"slices"
	"time"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
)

// Message is one event for a subscriber.
type Message struct {
	Reason string // metadata.Create, Update or Delete
	Kind   relation.Kind
	Body   []byte    // the event without its reason; shared, not to be modified
	Since  time.Time // when the change came in; zero for the first view and what is replayed
}

func deleted(kind relation.Kind, uid string, since time.Time) Message {
	return Message{Reason: metadata.Delete, Kind: kind, Body: metadata.EncodeDeleted(string(kind), uid), Since: since}
}

// Subscriber receives what concerns one node. Take and Close are called by one
// goroutine.
type Subscriber struct {
	hub      *Hub
	nodeName string
	node     *node
	kinds    []relation.Kind
	wake     chan struct{}

	// guarded by hub.mu
	buried  uint64                      // up to which tombstone it was told
	replay  uint64                      // up to which they are older than the subscription
	pending [ranks]map[string]time.Time // objects that concern the node, since when
	sent    map[string]sentBody
}

// ranks keeps pods apart: they go when nothing else is pending, so that what
// they refer to goes before them.
const (
	others = iota
	pods
	ranks
)

// sentBody is what a subscriber was told last of an object.
type sentBody struct {
	sum  uint64 // of the body; a collision hides one change in 2^64
	kind relation.Kind
}

// Subscribe registers a subscriber for the kinds of a node and makes the node's
// current view pending for it, with no gap between the two. The node need not
// exist. The caller must Close the subscriber.
func (h *Hub) Subscribe(nodeName string, kinds []relation.Kind) *Subscriber {
	s := &Subscriber{
		hub:      h,
		nodeName: nodeName,
		kinds:    kinds,
		wake:     make(chan struct{}, 1),
		pending:  [ranks]map[string]time.Time{{}, {}},
		sent:     map[string]sentBody{},
	}
	now := h.options.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.node = h.node(nodeName)
	s.node.subscribers[s] = struct{}{}
	h.prune(s.node, now)
	s.replay = s.node.tombstones.last
	h.index.View(nodeName, func(e *relation.Entity) {
		if s.wants(e.Kind()) {
			s.pending[rank(e.Kind())][e.UID()] = time.Time{}
		}
	})
	s.notify()
	return s
}

// Close ends the subscription. It may be called more than once.
func (s *Subscriber) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.node.subscribers, s)
	if s.hub.nodes[s.nodeName] == s.node {
		s.hub.drop(s.nodeName, s.node)
	}
}

// Wake receives when something may have become pending since Take last came
// back with less than it could.
func (s *Subscriber) Wake() <-chan struct{} { return s.wake }

// Take appends up to n messages to buf and counts them as sent: Deletes first,
// pods last. Less than n means that nothing else is pending. It does not block.
func (s *Subscriber) Take(buf []Message, n int) []Message {
	h, end := s.hub, len(buf)+n
	h.mu.Lock()
	defer h.mu.Unlock()
	s.catchUp()
	for _, t := range s.node.tombstones.after(s.buried) {
		if len(buf) == end {
			return buf
		}
		s.buried = t.seq
		if s.node.tombstones.valid(t) && s.wants(t.kind) {
			delete(s.sent, t.uid)
			m := deleted(t.kind, t.uid, time.Unix(0, t.at))
			if t.seq <= s.replay {
				m.Since = time.Time{}
			}
			buf = append(buf, m)
		}
	}
	for _, pending := range s.pending {
		for uid, since := range pending {
			if len(buf) == end {
				return buf
			}
			delete(pending, uid)
			if m, ok := h.decide(s, uid, since); ok {
				buf = append(buf, m)
			}
		}
	}
	return buf
}

// catchUp makes everything that was sent pending when tombstones were dropped
// before this subscriber was told: what is gone is found so. The caller holds
// the lock.
func (s *Subscriber) catchUp() {
	if s.buried >= s.node.tombstones.evicted {
		return
	}
	s.buried = s.node.tombstones.evicted
	for uid, b := range s.sent {
		if s.hub.index.Lookup(s.nodeName, uid) == nil {
			s.pending[rank(b.kind)][uid] = time.Time{}
		}
	}
}

// mark makes an object pending, or no more when it left: that is told from the
// node's tombstones. So the set is bounded by what the node has. The caller
// holds the lock.
func (s *Subscriber) mark(e *relation.Entity, concerns bool, now time.Time) {
	if !s.wants(e.Kind()) {
		return
	}
	pending := s.pending[rank(e.Kind())]
	if _, marked := pending[e.UID()]; !concerns {
		delete(pending, e.UID())
	} else if !marked {
		pending[e.UID()] = now
	}
	s.notify()
}

func (s *Subscriber) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Subscriber) wants(k relation.Kind) bool { return slices.Contains(s.kinds, k) }

// backlog is how many objects it waits to be told of. The caller holds the lock.
func (s *Subscriber) backlog() int {
	return len(s.node.tombstones.after(s.buried)) + len(s.pending[others]) + len(s.pending[pods])
}

func rank(k relation.Kind) int {
	if k == relation.Pod {
		return pods
	}
	return others
}
