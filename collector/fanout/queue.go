package fanout

import "github.com/metawire/metawire/collector/relation"

// item is an object as one subscriber knows it.
type item struct {
	entity *relation.Entity
	sum    uint64 // of the event that was sent last
	since  int64  // since when it is queued, Unix time in nanoseconds; 0 is from the start
	sent   bool
	left   bool // it concerns the node no more, and that was not told yet
	queued bool
	placed bool // a place in the queue is its, queued or not
}

// queue holds items in the order in which they became pending. An item is in it
// once.
type queue struct {
	items   []*item
	head    int
	waiting int // items that are queued
}

// push queues an item; one that is queued keeps its place and time.
func (q *queue) push(it *item, since int64) {
	if it.queued {
		return
	}
	it.queued, it.since = true, since
	q.waiting++
	if !it.placed {
		it.placed = true
		q.items = append(q.items, it)
	}
}

// remove takes an item out.
func (q *queue) remove(it *item) {
	if !it.queued {
		return
	}
	it.queued = false
	if q.waiting--; len(q.items) > 2*q.waiting+64 {
		q.compact()
	}
}

// pop returns the first item, nil when there is none.
func (q *queue) pop() *item {
	for q.head < len(q.items) {
		it := q.items[q.head]
		q.items[q.head] = nil
		q.head++
		it.placed = false
		if it.queued {
			it.queued = false
			q.waiting--
			return it
		}
	}
	*q = queue{items: q.items[:0]}
	if cap(q.items) > 64 {
		q.items = nil // a burst's memory is not kept
	}
	return nil
}

// compact drops the places of items that are not queued.
func (q *queue) compact() {
	kept := make([]*item, 0, q.waiting)
	for _, it := range q.items[q.head:] {
		if it.placed = it.queued; it.queued {
			kept = append(kept, it)
		}
	}
	q.items, q.head = kept, 0
}
