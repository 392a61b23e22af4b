// Package report tells of Falco pods that run unwired: by a metric, and by one
// Event a pod and reason. It wires nothing.
package report

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/wiring"
)

// Roster is what the report reads; *roster.Roster is one.
type Roster interface {
	SyncedPods() <-chan struct{}
	Changed() <-chan struct{}
	Subscribers() []roster.Pod
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
	// Patience is how long our init container may keep a pod waiting, default
	// 2m. Settle is the time between a change and looking again, default 2s: so
	// often at most are all pods looked at. Again is when to look again without
	// a change, and when an Event that failed is tried again, default 1m.
	Patience, Settle, Again time.Duration
	// Rate is of Events a second, default 10, Burst of Events at once, default 50.
	Rate  rate.Limit
	Burst int
	// Now is the clock, default time.Now.
	Now func() time.Time
}

func (o *Options) defaults() {
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	if o.Settle == 0 {
		o.Settle = 2 * time.Second
	}
	if o.Again == 0 {
		o.Again = time.Minute
	}
	if o.Rate == 0 {
		o.Rate = 10
	}
	if o.Burst == 0 {
		o.Burst = 50
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Report watches over the Falco pods of a roster.
type Report struct {
	roster  Roster
	events  Events
	log     *slog.Logger
	metrics *Metrics
	options Options
	limit   *rate.Limiter
	told    map[told]struct{} // Events that were made, of pods that are still there
	failed  time.Time         // when a failure was logged last
	resume  time.Time         // no Events before then: some have failed
}

// told is an Event that was made.
type told struct {
	uid    string
	reason wiring.Reason
}

// New returns a report. Without events (nil) it keeps the metric only.
func New(r Roster, events Events, log *slog.Logger, m *Metrics, o Options) *Report {
	o.defaults()
	return &Report{
		roster: r, events: events, log: log, metrics: m, options: o,
		limit: rate.NewLimiter(o.Rate, o.Burst), told: map[told]struct{}{},
	}
}

// Start watches until ctx ends, from when all pods are known. It returns nil
// then.
func (r *Report) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.roster.SyncedPods():
	}
	for {
		changed := r.roster.Changed()
		next := r.look(ctx)
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
func (r *Report) look(ctx context.Context) time.Duration {
	j := wiring.Judge{Now: r.options.Now(), Patience: r.options.Patience}
	if r.options.CA != nil {
		j.Authorities = r.options.CA()
	}
	counts, next := map[wiring.State]int{}, r.options.Again
	var due []finding
	here := map[string]struct{}{}
	for _, p := range r.roster.Subscribers() {
		if !p.Falco || p.Finished {
			continue
		}
		here[p.UID] = struct{}{}
		m := marks(&p)
		f := finding{j.Pod(m), m}
		counts[f.State]++
		if f.Again > 0 {
			next = min(next, f.Again)
		}
		if _, done := r.told[told{p.UID, f.Reason}]; f.Reason != "" && !done {
			due = append(due, f)
		}
	}
	for t := range r.told {
		if _, ok := here[t.uid]; !ok {
			delete(r.told, t)
		}
	}
	r.metrics.set(counts)
	if r.events != nil && !time.Now().Before(r.resume) {
		r.tell(ctx, due)
	}
	return next
}

// marks are those of a pod of the roster.
func marks(p *roster.Pod) wiring.Pod {
	return wiring.Pod{
		UID: p.UID, Namespace: p.Namespace, Name: p.Name, Running: p.Running, OptedOut: p.OptedOut,
		Status: p.Status, Init: p.Init, Created: p.Created, Owner: p.Owner,
	}
}

// tell makes Events. What fails is tried again later.
func (r *Report) tell(ctx context.Context, due []finding) {
	failures := 0
	for i := range due {
		f := &due[i]
		if r.limit.Wait(ctx) != nil {
			return // we are ending
		}
		err := r.events.Create(ctx, f.event(r.options.Now()))
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			r.metrics.events.WithLabelValues(string(f.Reason), "made").Inc()
			r.log.Info("a Falco pod is not as it should be", "pod", f.pod.Namespace+"/"+f.pod.Name, "reason", f.Reason, "message", f.Message)
		case apierrors.IsAlreadyExists(err): // another replica was first
		default:
			r.metrics.events.WithLabelValues(string(f.Reason), "failed").Inc()
			r.complain(f, err)
			r.resume = time.Now().Add(r.options.Again)
			if failures++; failures == maxFailures {
				return
			}
			continue
		}
		r.told[told{f.pod.UID, f.Reason}] = struct{}{}
	}
}

// maxFailures bounds what is asked in vain of an API server that refuses or does
// not answer. One may be of a namespace that is being deleted.
const maxFailures = 5

// complain logs a failure, at most once a minute.
func (r *Report) complain(f *finding, err error) {
	if now := r.options.Now(); now.Sub(r.failed) >= time.Minute {
		r.failed = now
		r.log.Warn("cannot make an Event on a Falco pod; trying again: the ClusterRole of the chart lets the collector create events",
			"pod", f.pod.Namespace+"/"+f.pod.Name, "reason", f.Reason, "message", f.Message, "error", err)
	}
}
