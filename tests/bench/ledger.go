package main

import (
	"bytes"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// ledger holds when each change of one measurement was asked for and when it
// arrived, on this process's monotonic clock. Its methods may be called from
// any goroutine.
type ledger struct {
	began   time.Time
	first   int // number of the first change
	changes []change
	open    atomic.Int64 // arrivals that are still to come
	done    chan struct{}
}

// change holds nanoseconds since began; zero is not yet.
type change struct{ asked, watched, delivered atomic.Int64 }

// newLedger expects n changes, numbered from first on.
func newLedger(first, n int) *ledger {
	l := &ledger{began: time.Now(), first: first, changes: make([]change, n), done: make(chan struct{})}
	l.open.Store(int64(2 * n))
	return l
}

func (l *ledger) at(number int) *change {
	if i := number - l.first; i >= 0 && i < len(l.changes) {
		return &l.changes[i]
	}
	return nil
}

// ask notes that a change is about to be sent to the API server.
func (l *ledger) ask(number int) { l.at(number).asked.Store(int64(time.Since(l.began))) }

// watch notes that the plain watch saw a change.
func (l *ledger) watch(number int) {
	if c := l.at(number); c != nil {
		l.arrived(&c.watched)
	}
}

// deliver notes that a subscriber received a change.
func (l *ledger) deliver(number int) {
	if c := l.at(number); c != nil {
		l.arrived(&c.delivered)
	}
}

// arrived keeps the first arrival.
func (l *ledger) arrived(at *atomic.Int64) {
	if at.CompareAndSwap(0, int64(time.Since(l.began))) && l.open.Add(-1) == 0 {
		close(l.done)
	}
}

// latencies are the sorted times from asking to arrival.
type latencies []time.Duration

// collect returns the latencies of what arrived by the plain watch and at the
// subscribers.
func (l *ledger) collect() (watched, delivered latencies) {
	for i := range l.changes {
		c := &l.changes[i]
		asked := c.asked.Load()
		if at := c.watched.Load(); at != 0 {
			watched = append(watched, time.Duration(at-asked))
		}
		if at := c.delivered.Load(); at != 0 {
			delivered = append(delivered, time.Duration(at-asked))
		}
	}
	slices.Sort(watched)
	slices.Sort(delivered)
	return watched, delivered
}

// quantile returns the nearest rank, 0 of none.
func (l latencies) quantile(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(int(q*float64(len(l))), len(l)-1)]
}

// changeNumber finds the number of a measured change in an event, without
// decoding it: its meta is JSON text in the message.
func changeNumber(event []byte) (int, bool) {
	_, rest, ok := bytes.Cut(event, []byte(`"`+changeLabel+`":"`))
	if !ok {
		return 0, false
	}
	value, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(string(value))
	return n, err == nil
}
