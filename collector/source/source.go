// Package source feeds the objects of the Kubernetes API to a sink: one
// reflector a kind, no informer cache. It trims objects while they are decoded,
// so that a whole object lives no longer than its decoding. It decides nothing
// about them.
package source

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/metawire/metawire/collector/relation"
)

// Sink takes objects in. Calls for one kind come from one goroutine, in the
// order of the API.
type Sink interface {
	// Apply takes in an object's latest version.
	Apply(o relation.Object)
	// Delete takes an object out.
	Delete(kind relation.Kind, uid string)
	// Replace makes the objects the only ones of their kind.
	Replace(kind relation.Kind, objects []relation.Object)
}

// Source watches every kind of the table.
type Source struct {
	kinds  []*watched
	synced chan struct{}

	mu sync.Mutex // guards every kind's state, and the closing of synced
}

// State says how far a kind is.
type State struct {
	Kind     Kind
	Listed   bool  // once it was listed as a whole
	Refused  error // the API server's refusal (403, 404), while it stands
	Required bool
}

// New returns a source that reads from the API server and feeds the sink, and
// the roster, once it is started. Without a roster (nil) nodes are not watched.
func New(cfg *rest.Config, sink Sink, roster Roster, log *slog.Logger, m *Metrics) (*Source, error) {
	s := &Source{synced: make(chan struct{})}
	kinds := Kinds()
	if roster == nil {
		kinds = slices.DeleteFunc(kinds, func(k Kind) bool { return k.Kind == node })
	}
	all, err := clients(cfg, kinds)
	if err != nil {
		return nil, err
	}
	for i, k := range kinds {
		s.kinds = append(s.kinds, &watched{
			Kind: k, client: all[i], sink: sink, roster: roster, metrics: m, host: cfg.Host, source: s,
			log: log.With("kind", k.Kind),
		})
		m.listed.WithLabelValues(string(k.Kind)) // 0, of those that are watched
	}
	return s, nil
}

// Start runs until ctx ends. It returns nil then.
func (s *Source) Start(ctx context.Context) error {
	var g errgroup.Group
	for _, w := range s.kinds {
		g.Go(func() error {
			w.run(ctx)
			return nil
		})
	}
	return g.Wait()
}

// Synced is closed when every kind was listed or, unless it is required,
// refused.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// States returns the state of every kind, in the order of the table.
func (s *Source) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]State, len(s.kinds))
	for i, w := range s.kinds {
		states[i] = State{w.Kind, w.listed, w.refused, w.Required}
	}
	return states
}

// set changes a kind's state and sees whether that completes the first sync.
func (s *Source) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	pending := slices.ContainsFunc(s.kinds, func(w *watched) bool {
		return !w.listed && (w.Required || w.refused == nil)
	})
	select {
	case <-s.synced:
	default:
		if !pending {
			close(s.synced)
		}
	}
}

// watched is one kind being watched. It is the reflector's store.
type watched struct {
	Kind
	client  client
	sink    Sink
	roster  Roster // nil: none
	metrics *Metrics
	host    string
	log     *slog.Logger
	source  *Source

	started time.Time
	watches int // opened so far
	told    problem

	listed  bool  // guarded by source.mu
	refused error // guarded by source.mu
}

// run lists and watches until ctx ends, again and again after a failure.
func (w *watched) run(ctx context.Context) {
	w.started = time.Now()
	var example any = partialObject()
	if w.decode != nil {
		example = w.decode.object
	}
	// The cap bounds how long changes go unseen after an outage of the API
	// server; ten requests in 10 s are nothing to it.
	backoff := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: 10 * time.Second}
	r := cache.NewReflectorWithOptions(w, example, w, cache.ReflectorOptions{
		Name: "metawire", TypeDescription: string(w.Kind.Kind), Backoff: &backoff, Clock: endingClock{ctx: ctx},
	})
	r.WatchListPageSize = pageSize
	delay := backoff.DelayWithReset(clock.RealClock{}, time.Minute)
	for ctx.Err() == nil {
		err := r.ListAndWatchWithContext(ctx)
		next := delay()
		if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
			w.metrics.refused.WithLabelValues(string(w.Kind.Kind)).Set(1)
			listed := false
			w.source.set(func() { w.refused, listed = err, w.listed })
			if listed {
				next = time.Minute // what may be listed but not watched is listed as a whole each time
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
}

// endingClock is the real clock, but that waiting ends with the context: the
// reflector sleeps through it when the API server refuses connections.
type endingClock struct {
	clock.RealClock
	ctx context.Context //nolint:containedctx // the clock's only purpose
}

// After implements clock.Clock.
func (c endingClock) After(d time.Duration) <-chan time.Time {
	fired := make(chan time.Time, 2)
	unhook := context.AfterFunc(c.ctx, func() { fired <- time.Now() })
	time.AfterFunc(d, func() {
		unhook()
		fired <- time.Now()
	})
	return fired
}

// Transformer implements cache.TransformingStore: objects are trimmed while the
// first list is still arriving.
func (w *watched) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return w.object(obj) }
}

// Add implements cache.ReflectorStore.
func (w *watched) Add(obj any) error { return w.Update(obj) }

// Update implements cache.ReflectorStore.
func (w *watched) Update(obj any) error {
	t, err := w.object(obj)
	if err == nil {
		w.apply(t)
	}
	return err
}

// Delete implements cache.ReflectorStore.
func (w *watched) Delete(obj any) error {
	t, err := w.object(obj)
	if err == nil {
		w.remove(t.UID)
	}
	return err
}

// Replace implements cache.ReflectorStore.
func (w *watched) Replace(list []any, _ string) error {
	objects := len(list)
	if err := w.replace(list); err != nil {
		return err
	}
	first := false
	w.source.set(func() { first, w.listed, w.refused = !w.listed, true, nil })
	w.metrics.refused.WithLabelValues(string(w.Kind.Kind)).Set(0)
	if first {
		took := time.Since(w.started)
		w.metrics.listed.WithLabelValues(string(w.Kind.Kind)).Set(1)
		w.metrics.firstList.WithLabelValues(string(w.Kind.Kind)).Set(took.Seconds())
		w.log.Debug("listed", "objects", objects, "took", took)
	}
	return nil
}

// Resync implements cache.ReflectorStore; there is nothing to do.
func (w *watched) Resync() error { return nil }

// object trims an API object; a trimmed one stays as it is.
func (w *watched) object(obj any) (*trimmed, error) {
	switch obj := obj.(type) {
	case *trimmed:
		return obj, nil
	case apiObject:
		t := w.trim(obj)
		if t.UID == "" {
			return nil, fmt.Errorf("watch %s: an object without UID: was it not sent as protobuf?", w.Resource.Resource)
		}
		return &t, nil
	default:
		return nil, fmt.Errorf("watch %s: unexpected %T", w.Resource.Resource, obj)
	}
}
