// Package fanout holds the index and tells every subscriber of a node what
// changed there. Nobody waits for a subscriber: each has a set of what is
// pending for it, and decides when it sends what that comes to. It does no I/O.
package fanout

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/metawire/metawire/collector/relation"
)

// Options configures a Hub; the zero value is right outside of tests.
type Options struct {
	// TombstoneAge is how long a node remembers what left it, default 1h.
	TombstoneAge time.Duration
	// TombstonesPerNode is how many it remembers at most, default 10,000; the
	// oldest go first. Tombstones is how many all nodes together remember
	// before each is held to its equal share, default 200,000 (some 25 MB).
	TombstonesPerNode, Tombstones int
	// Now is the clock, default time.Now.
	Now func() time.Time
}

// Hub holds the index and the subscribers. Its methods are safe for concurrent
// use and take one short lock.
type Hub struct {
	options Options
	metrics *Metrics
	seed    maphash.Seed

	mu    sync.Mutex
	index *relation.Index
	view  []*relation.Entity // of the last Subscribe; reused
	nodes map[string]*node   // those with subscribers or tombstones
	dead  int                // tombstones of all nodes
}

// node is what the hub knows of a node besides the index.
type node struct {
	subscribers map[*Subscriber]struct{}
	tombstones  tombstones
}

// NewHub returns an empty hub.
func NewHub(m *Metrics, o Options) *Hub {
	if o.TombstoneAge == 0 {
		o.TombstoneAge = time.Hour
	}
	if o.TombstonesPerNode == 0 {
		o.TombstonesPerNode = 10_000
	}
	if o.Tombstones == 0 {
		o.Tombstones = 200_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	h := &Hub{options: o, metrics: m, seed: maphash.MakeSeed(), index: relation.New(), nodes: map[string]*node{}}
	m.hub = h
	return h
}

// Apply takes in an object's latest version.
func (h *Hub) Apply(o relation.Object) {
	if o.Event != nil && o.Kind != relation.Pod {
		h.metrics.encodings.Inc() // a pod's are counted when its references are known
	}
	now := h.options.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.announce(h.index.Upsert(o), now)
}

// Delete takes an object out; an unknown one is no error.
func (h *Hub) Delete(kind relation.Kind, uid string) {
	now := h.options.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.announce(h.index.Delete(kind, uid), now)
}

// Replace makes the objects the only ones of their kind. It takes the lock
// anew for each, so that a long list delays no subscriber; nobody else may
// apply objects of that kind meanwhile.
func (h *Hub) Replace(kind relation.Kind, objects []relation.Object) {
	keep := make(map[string]struct{}, len(objects))
	for _, o := range objects {
		keep[o.UID] = struct{}{}
		h.Apply(o)
	}
	h.mu.Lock()
	held := h.index.UIDs(kind)
	h.mu.Unlock()
	for _, uid := range held {
		if _, ok := keep[uid]; !ok {
			h.Delete(kind, uid)
		}
	}
}

// Sweep forgets tombstones that are too old. It is meant to be called every
// few minutes.
func (h *Hub) Sweep() {
	now := h.options.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, n := range h.nodes {
		h.prune(n, now)
		h.drop(name, n)
	}
}

// announce makes what changed pending for the subscribers of its node. The
// caller holds the lock.
func (h *Hub) announce(changes []relation.Change, now time.Time) {
	for _, c := range changes {
		n := h.nodes[c.Node]
		if n == nil && c.Concerns {
			continue
		}
		if c.Concerns {
			h.bury(n, func(t *tombstones) { t.remove(c.Entity.UID()) })
		} else {
			n = h.node(c.Node)
			h.bury(n, func(t *tombstones) { t.add(c.Entity.Kind(), c.Entity.UID(), now) })
			h.prune(n, now)
		}
		for s := range n.subscribers {
			s.mark(c.Entity, c.Concerns, now)
		}
	}
}

// prune drops tombstones of a node that are too old or too many. The caller
// holds the lock.
func (h *Hub) prune(n *node, now time.Time) {
	limit := h.options.TombstonesPerNode
	if h.dead > h.options.Tombstones {
		limit = min(limit, h.options.Tombstones/len(h.nodes))
	}
	h.bury(n, func(t *tombstones) {
		h.metrics.evicted.Add(float64(t.prune(now.Add(-h.options.TombstoneAge), limit)))
	})
}

// bury changes a node's tombstones and keeps count of all. The caller holds the
// lock.
func (h *Hub) bury(n *node, change func(*tombstones)) {
	before := n.tombstones.len()
	change(&n.tombstones)
	h.dead += n.tombstones.len() - before
}

// node returns the named node, made if need be. The caller holds the lock.
func (h *Hub) node(name string) *node {
	n := h.nodes[name]
	if n == nil {
		n = &node{subscribers: map[*Subscriber]struct{}{}}
		h.nodes[name] = n
	}
	return n
}

// drop forgets a node that nobody needs. The caller holds the lock.
func (h *Hub) drop(name string, n *node) {
	if len(n.subscribers) == 0 && n.tombstones.len() == 0 {
		delete(h.nodes, name)
	}
}
