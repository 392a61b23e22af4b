package inventory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Ledger is the index of what was acknowledged: for every object the version
// that the endpoint has, and what a deletion must say. It is read from ConfigMaps
// when a run begins, since another replica may have sent the last one, and held
// while the run goes on. One goroutine uses it.
type Ledger struct {
	state   State
	options LedgerOptions
	saved

	complete bool
}

// LedgerOptions configures a Ledger.
type LedgerOptions struct {
	// CompleteEvery is how many runs make one that sends everything; default 24.
	CompleteEvery int
	// Basis is what else decides the bytes that are sent, and where to: another
	// one than before loses the index.
	Basis string
	Log   *slog.Logger // default none
}

// saved is what a Ledger keeps.
type saved struct {
	generation string            // of the first shard; empty if there is none
	runs       int               // since the last that sent everything
	types      map[string]*known // by the type's name
}

// known are the objects of a type.
type known struct {
	apiVersion, kind string // that they were sent as
	objects          map[string]*entry
	// Of this run:
	now    string // the apiVersion
	listed bool   // whole: what was not seen is gone
}

// entry is an object.
type entry struct {
	namespace, name string
	version         string // that was acknowledged; empty if none was for certain
	// Of this run:
	seen   bool
	handed string // the version that was handed to the contract
	sent   bool   // one was
}

// NewLedger returns the ledger of a release; it reads nothing yet.
func NewLedger(s State, o LedgerOptions) *Ledger {
	o.CompleteEvery = cmp.Or(o.CompleteEvery, 24)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return &Ledger{state: s, options: o}
}

// Begin reads the ledger for a run, and says whether the run must send
// everything: it is its turn, or the index is lost, which is no error.
func (l *Ledger) Begin(ctx context.Context) (complete bool, err error) {
	l.saved, err = l.read(ctx)
	switch {
	case ctx.Err() != nil:
		return false, fmt.Errorf("read the index: %w", ctx.Err())
	case err != nil:
		l.options.Log.Warn("the index of what was sent is lost: this run sends everything", "error", err)
		l.types, l.complete = map[string]*known{}, true
	default:
		l.complete = l.runs+1 >= l.options.CompleteEvery
	}
	return l.complete, nil
}

func (l *Ledger) of(t Type) *known {
	k := l.types[t.Name]
	if k == nil {
		k = &known{apiVersion: t.APIVersion(), kind: t.Kind, objects: map[string]*entry{}}
		l.types[t.Name] = k
	}
	k.now = t.APIVersion()
	return k
}

// Changed notes that an object is there, and says whether it must be sent.
func (l *Ledger) Changed(t Type, id Identity) bool {
	k := l.of(t)
	e := k.objects[id.UID]
	if e != nil {
		e.seen = true
	}
	return l.complete || e == nil || e.version == "" || e.version != id.ResourceVersion || k.apiVersion != k.now
}

// Sent notes that an object was handed to the contract. One without a UID, which
// some aggregated APIs have, cannot be told to be gone: it is always new.
func (l *Ledger) Sent(t Type, id Identity) {
	if id.UID == "" {
		return
	}
	k := l.of(t)
	e := k.objects[id.UID]
	if e == nil {
		e = &entry{namespace: id.Namespace, name: id.Name}
		k.objects[id.UID] = e
	}
	e.seen, e.sent, e.handed = true, true, id.ResourceVersion
}

// Gone takes a type as listed whole, and returns which of its objects are no
// longer there, sorted. A type that it is not called for, because it failed,
// keeps them.
func (l *Ledger) Gone(t Type) []Identity {
	k := l.of(t)
	k.listed = true
	var gone []Identity
	for uid, e := range k.objects {
		if !e.seen {
			gone = append(gone, Identity{UID: uid, APIVersion: k.apiVersion, Kind: k.kind, Namespace: e.namespace, Name: e.name})
		}
	}
	slices.SortFunc(gone, func(a, b Identity) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return gone
}

// Names are of the types that it has objects of, sorted.
func (l *Ledger) Names() []string { return slices.Sorted(maps.Keys(l.types)) }

// End writes the ledger after a run. Unless the run was acknowledged, pages that
// wait on disk are not, versions stay as they were, and so do deletions, which
// are told again; but what is new may have arrived, and its deletion must be
// told then. A ledger that another replica has written meanwhile stays as it is,
// which is an error.
func (l *Ledger) End(ctx context.Context, acknowledged bool) error {
	changed := acknowledged
	for _, k := range l.types {
		for uid, e := range k.objects {
			switch {
			case !acknowledged:
				changed = changed || e.sent && e.version == ""
			case k.listed && !e.seen:
				delete(k.objects, uid)
			case e.sent:
				e.version = e.handed
			case k.now != "" && k.now != k.apiVersion:
				e.version = "" // of another apiVersion than the type's is now
			}
		}
		if acknowledged && k.now != "" {
			k.apiVersion = k.now
		}
	}
	maps.DeleteFunc(l.types, func(_ string, k *known) bool { return len(k.objects) == 0 })
	switch {
	case acknowledged && l.complete:
		l.runs = 0
	case acknowledged:
		l.runs++
	case l.complete: // it still has to be done
		l.runs = l.options.CompleteEvery
	}
	if !changed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // ctx may be without an end
	defer cancel()
	return l.write(ctx)
}
