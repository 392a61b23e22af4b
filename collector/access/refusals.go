package access

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// What was refused.
const (
	OfSubscription = "subscription"
	OfRevocation   = "revocation" // of a stream that was open
	OfTicket       = "ticket"
)

// How many refusals are kept; of one address fewer, so that who tries a lot does
// not push out what the others were told.
const (
	maxRefusals   = 256
	maxOfOneAsker = 8
)

// asker is who was refused what, as far as it is known.
type asker struct {
	address netip.Addr
	node    string // empty for a ticket
	pod     string // its UID
}

// Record is what one caller was refused, which may have been often.
type Record struct {
	Of, Node, Pod string // Pod is a UID, empty if it is not known
	Address       netip.Addr
	Code, Reason  string
	First, Last   time.Time
	Times         int64
	Served        bool // it was only audited
}

// refusals keeps the last ones, the oldest first. The zero value is empty.
type refusals struct {
	mu  sync.Mutex
	all []Record
}

// add counts a refusal. It takes a time that grows with what is kept, which is
// bounded.
func (l *refusals) add(of string, who asker, r *Refusal, served bool) {
	now := time.Now()
	n := Record{Of: of, Node: who.node, Pod: who.pod, Address: who.address, Code: r.Code, Reason: r.Reason, First: now, Last: now, Times: 1, Served: served}
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest, ofThis := 0, 0 // the place of the first that this one may push out
	for i := len(l.all) - 1; i >= 0; i-- {
		o := &l.all[i]
		if o.Address != n.Address {
			continue
		}
		if o.Of == n.Of && o.Node == n.Node && o.Pod == n.Pod && o.Code == n.Code {
			n.First, n.Times = o.First, o.Times+1
			l.all = append(slices.Delete(l.all, i, i+1), n)
			return
		}
		oldest, ofThis = i, ofThis+1
	}
	if ofThis < maxOfOneAsker {
		oldest = 0
	}
	if ofThis >= maxOfOneAsker || len(l.all) >= maxRefusals {
		l.all = slices.Delete(l.all, oldest, oldest+1)
	}
	l.all = append(l.all, n)
}

// Refusals returns the last refusals, the newest first: those that asked for the
// node, those of pods on it, whatever they asked for, and those of tickets, which
// name none; all if it is empty. There are at most 256. Any goroutine may call it.
func (g *Guard) Refusals(node string) []Record {
	g.last.mu.Lock()
	all := slices.Clone(g.last.all)
	g.last.mu.Unlock()
	if node != "" {
		all = slices.DeleteFunc(all, func(r Record) bool {
			p, _ := g.roster.Pod(r.Pod)
			return r.Node != "" && r.Node != node && p.Node != node
		})
	}
	slices.Reverse(all)
	return all
}
