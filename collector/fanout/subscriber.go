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
	// Event is the whole event; for an Update it still says Create, see
	// metadata.AsUpdate. It is shared and must not be modified.
	Event []byte
	Since time.Time // when the change came in; zero for the first view and what is replayed
}

// Subscriber receives what concerns one node. Take and Close are called by one
// goroutine.
type Subscriber struct {
	hub   *Hub
	name  string // of the node
	node  *node
	kinds []relation.Kind
	wake  chan struct{}

	// guarded by hub.mu
	known  map[string]*item // by UID: what concerns the node, and what was sent
	queues [ranks]queue
	buried uint64 // up to which tombstone it was told
	replay uint64 // up to which they are older than the subscription
}

// ranks keeps pods apart: they go when nothing else is pending, so that what
// they refer to goes before them.
const (
	others = iota
	pods
	ranks
)

// Subscribe registers a subscriber for the kinds of a node and makes the node's
// current view pending for it, with no gap between the two. The node need not
// exist. The caller must Close the subscriber.
func (h *Hub) Subscribe(nodeName string, kinds []relation.Kind) *Subscriber {
	s := &Subscriber{hub: h, name: nodeName, kinds: kinds, wake: make(chan struct{}, 1)}
	now := h.options.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.node = h.node(nodeName)
	s.node.subscribers[s] = struct{}{}
	h.prune(s.node, now)
	s.replay = s.node.tombstones.last
	h.view = h.view[:0]
	h.index.View(nodeName, func(e *relation.Entity) {
		if s.wants(e.Kind()) {
			h.view = append(h.view, e)
		}
	})
	s.known = make(map[string]*item, len(h.view))
	items := make([]item, len(h.view))
	for i, e := range h.view {
		items[i].entity = e
		s.known[e.UID()] = &items[i]
		s.queues[rank(e.Kind())].push(&items[i], 0)
	}
	clear(h.view)
	s.notify()
	return s
}

// Close ends the subscription. It may be called more than once.
func (s *Subscriber) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.node.subscribers, s)
	if s.hub.nodes[s.name] == s.node {
		s.hub.drop(s.name, s.node)
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
			delete(s.known, t.uid)
			m := deleted(t.kind, t.uid)
			if t.seq > s.replay {
				m.Since = time.Unix(0, t.at)
			}
			buf = append(buf, m)
		}
	}
	for rank := range s.queues {
		for len(buf) < end {
			it := s.queues[rank].pop()
			if it == nil {
				break
			}
			if m, ok := s.decide(it); ok {
				buf = append(buf, m)
			}
		}
	}
	return buf
}

// decide works out what to say of an object now, if anything. The caller holds
// the lock.
func (s *Subscriber) decide(it *item) (m Message, ok bool) {
	m.Kind = it.entity.Kind()
	if it.since != 0 {
		m.Since = time.Unix(0, it.since)
	}
	if it.left { // only when its tombstone was dropped: see catchUp
		delete(s.known, it.entity.UID())
		m.Reason, m.Event = metadata.Delete, metadata.EncodeDeleted(string(m.Kind), it.entity.UID())
		return m, true
	}
	event, made := it.entity.Event()
	if made {
		s.hub.metrics.encodings.Inc()
	}
	// What is compared is what was said, not a version: an object may change
	// and change back before it is sent. A collision hides one change in 2^64.
	sum := it.entity.Sum(s.hub.seed)
	m.Reason, m.Event = metadata.Create, event
	if it.sent {
		if it.sum == sum {
			return Message{}, false
		}
		m.Reason = metadata.Update
	}
	it.sum, it.sent = sum, true
	return m, true
}

func deleted(kind relation.Kind, uid string) Message {
	return Message{Reason: metadata.Delete, Kind: kind, Event: metadata.EncodeDeleted(string(kind), uid)}
}

// catchUp queues what left when its tombstone was dropped before this
// subscriber was told. The caller holds the lock.
func (s *Subscriber) catchUp() {
	if s.buried >= s.node.tombstones.evicted {
		return
	}
	s.buried = s.node.tombstones.evicted
	for _, it := range s.known {
		if it.left {
			s.queues[rank(it.entity.Kind())].push(it, 0)
		}
	}
}

// mark makes an object pending, or no more when it left: that is told from the
// node's tombstones. So what is held is bounded by what the node has and what
// was sent. The caller holds the lock.
func (s *Subscriber) mark(e *relation.Entity, concerns bool, now time.Time) {
	if !s.wants(e.Kind()) {
		return
	}
	q, it := &s.queues[rank(e.Kind())], s.known[e.UID()]
	switch {
	case concerns && it == nil:
		it = &item{entity: e}
		s.known[e.UID()] = it
		q.push(it, now.UnixNano())
	case concerns:
		it.entity, it.left = e, false
		q.push(it, now.UnixNano())
	case it != nil:
		it.left = true
		q.remove(it)
		if !it.sent {
			delete(s.known, e.UID())
		}
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

// Pending returns how many objects it waits to be told of. Any goroutine may call
// it.
func (s *Subscriber) Pending() int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.backlog()
}

// backlog is what Pending returns. The caller holds the lock.
func (s *Subscriber) backlog() int {
	return len(s.node.tombstones.after(s.buried)) + s.queues[others].waiting + s.queues[pods].waiting
}

func rank(k relation.Kind) int {
	if k == relation.Pod {
		return pods
	}
	return others
}
