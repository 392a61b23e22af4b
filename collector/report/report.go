// Package report tells of Falco pods that run unwired: by a metric, and by one
// Event a pod and reason. It wires nothing.
package report

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/wiring"
)

// Roster is what the report reads; *roster.Roster is one.
type Roster interface {
	SyncedPods() <-chan struct{}
	SyncedNamespaces() <-chan struct{}
	Changed() <-chan struct{}
	Subscribers() []roster.Pod
	Namespace(name string) (roster.Namespace, bool)
}

// Events takes Events in.
type Events interface {
	// Create makes the Event in its namespace. An error that says that it
	// exists already is no failure.
	Create(ctx context.Context, e *corev1.Event) error
}

// EventsOf makes Events with a client of the API server.
func EventsOf(client typedcorev1.EventsGetter) Events { return apiEvents{client} }

type apiEvents struct{ client typedcorev1.EventsGetter }

func (a apiEvents) Create(ctx context.Context, e *corev1.Event) error {
	_, err := a.client.Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	return err
}

// Options are what may differ; the zero value is right outside of tests.
type Options struct {
	// CA returns the fingerprints of the authorities that are published now;
	// nil: no pod is ever outdated.
	CA func() []string
	// NoTickets says that the collector gives none.
	NoTickets bool
	// Streams returns those that are open at this replica; nil: there are none. It
	// is called when the metrics are scraped.
	Streams func() []Stream
	// Namespaces selects those whose pods the webhook wires, by their labels;
	// nil: all. Those that Kubernetes or a label of their own keeps from it are
	// left out anyway.
	Namespaces labels.Selector
	// Settle is the time between a change and looking again, default 2s: so often
	// at most are all pods looked at. Again is when to look again without a
	// change, default 1m.
	Settle, Again time.Duration
	// Retry is when an Event that failed is tried again, default 1s, twice as
	// long after each failure, at most 16 times; the same after five failures in
	// a row for all Events. Timeout bounds one request, default 5s.
	Retry, Timeout time.Duration
	// Rate is of Events a second, default 100, Burst of Events at once, default
	// 200.
	Rate  rate.Limit
	Burst int
	// Now is the clock, default time.Now.
	Now func() time.Time
}

func (o *Options) defaults() {
	o.Settle = cmp.Or(o.Settle, 2*time.Second)
	o.Again = cmp.Or(o.Again, time.Minute)
	o.Retry = cmp.Or(o.Retry, time.Second)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Rate = cmp.Or(o.Rate, 100)
	o.Burst = cmp.Or(o.Burst, 200)
	if o.Namespaces == nil {
		o.Namespaces = labels.Everything()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Report watches over the Falco pods of a roster.
type Report struct {
	roster  Roster
	log     *slog.Logger
	metrics *Metrics
	options Options
	teller  *teller // nil: no Events
}

// New returns a report. Without events (nil) it keeps the metric only.
func New(r Roster, events Events, log *slog.Logger, m *Metrics, o Options) *Report {
	o.defaults()
	out := &Report{roster: r, log: log, metrics: m, options: o}
	m.connected.streams = o.Streams
	if events != nil {
		out.teller = newTeller(events, log, m, o)
	}
	return out
}

// Start watches until ctx ends, from when all pods are known. It returns nil
// then.
func (r *Report) Start(ctx context.Context) error {
	for _, synced := range []<-chan struct{}{r.roster.SyncedPods(), r.roster.SyncedNamespaces()} {
		select {
		case <-ctx.Done():
			return nil
		case <-synced:
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	if r.teller != nil {
		all.Go(func() { r.teller.run(ctx) })
	}
	for {
		changed := r.roster.Changed()
		next := r.look()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(next):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.options.Settle):
		}
	}
}

// look looks at every Falco pod, and returns when to do so again if nothing
// changes.
func (r *Report) look() time.Duration {
	j := wiring.Judge{Now: r.options.Now(), NoTickets: r.options.NoTickets}
	if r.options.CA != nil {
		j.Authorities = r.options.CA()
	}
	counts, next := map[wiring.State]int{}, r.options.Again
	found := findings{here: map[string]struct{}{}}
	var wired []wiredPod
	for _, p := range r.roster.Subscribers() {
		if !p.Falco || p.Finished {
			continue
		}
		found.here[p.UID] = struct{}{}
		m := marks(&p)
		m.LeftOut = r.leftOut(p.Namespace)
		f := finding{j.Pod(m), m}
		counts[f.State]++
		if slices.Contains(wiredStates(), f.State) {
			wired = append(wired, wiredPod{p.UID, p.Node, f.State, f.State == wiring.StateWired && !r.options.NoTickets})
		}
		if f.Again > 0 {
			next = min(next, f.Again)
		}
		if f.Reason != "" {
			found.due = append(found.due, f)
		}
	}
	r.metrics.connected.set(wired)
	r.metrics.set(counts)
	if r.teller != nil {
		r.teller.put(found)
	}
	return next
}

// leftOut reports whether the webhook leaves the namespace alone. Of one that is
// not known nothing can be said: it is on its way, or gone.
func (r *Report) leftOut(name string) bool {
	n, ok := r.roster.Namespace(name)
	return !ok || name == metav1.NamespaceSystem || n.Labels[wiring.InjectAnnotation] == "false" ||
		!r.options.Namespaces.Matches(labels.Set(n.Labels))
}

// marks are those of a pod of the roster.
func marks(p *roster.Pod) wiring.Pod {
	return wiring.Pod{
		UID: p.UID, Namespace: p.Namespace, Name: p.Name, Running: p.Running, OptedOut: p.OptedOut,
		Status: p.Status, Init: p.Init, Created: p.Created, Owner: p.Owner,
	}
}
