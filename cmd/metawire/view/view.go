// Package view is what a subscriber knows of its node, and how that looks as a
// table. It does no I/O and has no clock.
package view

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metawire/metawire/collector/metadata"
)

// How long what just happened to a row is marked, and how long no event must
// have come for the first view to count as full: the collector paces a
// subscriber, but never pauses for so long.
const (
	markFor = 2 * time.Second
	quiet   = 500 * time.Millisecond
)

// View holds the objects that a subscriber was told of. Methods take the time
// of their call, which must not go backwards. It is not safe for concurrent use.
type View struct {
	node    string
	objects map[string]*object // by UID

	streams    int       // so far
	subscribed time.Time // when the first stream was there
	last       time.Time // the last event
	events     int
	full       bool // the first view is complete
	fullSize   int
	fullTook   time.Duration
}

// object is one entry. A deleted one stays while it is marked.
type object struct {
	Identity
	uid    string
	ip     string
	event  *metadata.Event // the last Create or Update
	change Change
	at     time.Time // of the last event that said something new
	marked bool      // not part of the first view
}

// Identity names an object for people.
type Identity struct{ Kind, Namespace, Name string }

func (i Identity) String() string {
	if i.Namespace == "" {
		return i.Kind + " " + i.Name
	}
	return i.Kind + " " + i.Namespace + "/" + i.Name
}

// Change is what happened to an object last.
type Change int

// The changes. None is for an object that nothing happened to lately.
const (
	None Change = iota
	Created
	Updated
	Deleted
)

// New returns the empty view of a node.
func New(node string) *View {
	return &View{node: node, objects: map[string]*object{}}
}

// Subscribed tells that a stream is there. Entries stay: only a Delete takes
// one out, and what went meanwhile is told again.
func (v *View) Subscribed(now time.Time) {
	v.streams++
	if v.subscribed.IsZero() {
		v.subscribed = now
	}
}

// Apply takes in an event and returns whom it is about; an object that is
// deleted without having been seen goes by its UID. It fails on an event that
// breaks the contract.
func (v *View) Apply(e *metadata.Event, now time.Time) (Identity, error) {
	v.Advance(now)
	v.events++
	v.last = now
	switch e.GetReason() {
	case metadata.Create, metadata.Update:
		return v.put(e, now)
	case metadata.Delete:
		return v.remove(e, now), nil
	}
	return Identity{}, fmt.Errorf("event of %s %s has the unknown reason %q", e.GetKind(), e.GetUid(), e.GetReason())
}

// Has reports whether the view was told of an object that is not deleted, or only
// just was.
func (v *View) Has(uid string) bool { return v.objects[uid] != nil }

// Advance lets time pass: the first view becomes full, deleted objects go.
func (v *View) Advance(now time.Time) {
	if !v.full && v.events > 0 && now.Sub(v.last) >= quiet {
		v.full, v.fullSize, v.fullTook = true, len(v.objects), v.last.Sub(v.subscribed)
	}
	for uid, o := range v.objects {
		if o.change == Deleted && now.Sub(o.at) >= markFor {
			delete(v.objects, uid)
		}
	}
}

func (v *View) put(e *metadata.Event, now time.Time) (Identity, error) {
	var meta metadata.Meta
	if err := json.Unmarshal([]byte(e.GetMeta()), &meta); err != nil {
		return Identity{}, fmt.Errorf("meta of %s %s: %w", e.GetKind(), e.GetUid(), err)
	}
	var status metadata.Status
	if e.Status != nil {
		if err := json.Unmarshal([]byte(e.GetStatus()), &status); err != nil {
			return Identity{}, fmt.Errorf("status of %s %s: %w", e.GetKind(), e.GetUid(), err)
		}
	}
	o, known := v.objects[e.GetUid()]
	known = known && o.change != Deleted
	switch {
	case !known:
		o = &object{uid: e.GetUid(), change: Created, at: now, marked: v.full}
		v.objects[o.uid] = o
	case !same(o.event, e):
		o.change, o.at, o.marked = Updated, now, v.full
	}
	o.Identity = Identity{printable(e.GetKind()), printable(meta.Namespace), printable(meta.Name)}
	o.ip, o.event = printable(status.PodIP), e
	return o.Identity, nil
}

func (v *View) remove(e *metadata.Event, now time.Time) Identity {
	o, ok := v.objects[e.GetUid()]
	if !ok {
		return Identity{Kind: printable(e.GetKind()), Name: printable(e.GetUid())}
	}
	if o.change != Deleted {
		o.change, o.at, o.marked = Deleted, now, true
	}
	return o.Identity
}

// same reports whether two events say the same of an object, as they do after
// a reconnect.
func same(a, b *metadata.Event) bool {
	return a.GetMeta() == b.GetMeta() && a.GetStatus() == b.GetStatus() && proto.Equal(a.GetRefs(), b.GetRefs())
}
