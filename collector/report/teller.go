package report

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/metawire/metawire/internal/wiring"
)

// teller makes Events beside those who look, so that a slow API server keeps no
// metric from being true. Only run touches what it remembers.
type teller struct {
	events  Events
	log     *slog.Logger
	metrics *Metrics
	options Options
	limit   *rate.Limiter
	latest  chan findings     // what was found last, while it is not taken
	told    map[told]struct{} // Events that were made, of pods that are still there
	failing map[told]failure  // Events that were not
	all     failure           // once too many have failed in a row
	row     int               // failures in a row
	logged  time.Time         // when a failure was logged last
}

// findings are those of a look.
type findings struct {
	here map[string]struct{} // UIDs of all pods that were looked at
	due  []finding
}

// told is an Event.
type told struct {
	uid    string
	reason wiring.Reason
}

// failure says when to try again, and how long after the last time that is.
type failure struct {
	at    time.Time
	delay time.Duration
}

// maxFailures in a row are those of an API server that refuses or does not
// answer; fewer may be of a namespace that is being deleted.
const maxFailures = 5

func newTeller(e Events, log *slog.Logger, m *Metrics, o Options) *teller {
	return &teller{
		events: e, log: log, metrics: m, options: o, limit: rate.NewLimiter(o.Rate, o.Burst),
		latest: make(chan findings, 1), told: map[told]struct{}{}, failing: map[told]failure{},
	}
}

// put replaces what is to be told. One goroutine calls it.
func (t *teller) put(f findings) {
	select {
	case <-t.latest:
	default:
	}
	t.latest <- f
}

// run tells until ctx ends.
func (t *teller) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due []finding
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-t.latest:
			due = f.due
			forget(t.told, f.here)
			forget(t.failing, f.here)
		case <-timer.C:
		}
		timer.Reset(t.tell(ctx, due))
	}
}

// forget drops what is of pods that are gone.
func forget[V any](m map[told]V, here map[string]struct{}) {
	for e := range m {
		if _, ok := here[e.uid]; !ok {
			delete(m, e)
		}
	}
}

// tell makes the Events that are due, what has not failed yet first, until there
// is something newer to tell. It returns when to go on.
func (t *teller) tell(ctx context.Context, due []finding) time.Duration {
	slices.SortStableFunc(due, func(a, b finding) int {
		return cmp.Compare(t.failing[a.told()].delay, t.failing[b.told()].delay)
	})
	next := time.Hour
	for i := range due {
		e := due[i].told()
		if _, done := t.told[e]; done {
			continue
		}
		if left := time.Until(t.all.at); left > 0 {
			return left
		}
		if left := time.Until(t.failing[e].at); left > 0 {
			next = min(next, left)
			continue
		}
		if len(t.latest) > 0 {
			return 0
		}
		if t.limit.Wait(ctx) != nil {
			return next // we are ending
		}
		t.try(ctx, &due[i])
		next = min(next, cmp.Or(t.failing[e].delay, next))
	}
	return next
}

// try makes one Event.
func (t *teller) try(ctx context.Context, f *finding) {
	e := f.told()
	asking, cancel := context.WithTimeout(ctx, t.options.Timeout)
	defer cancel()
	err := t.events.Create(asking, f.event(t.options.Now()))
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		t.metrics.events.WithLabelValues(string(f.Reason), "made").Inc()
		t.log.Info("a Falco pod is not as it should be", "pod", f.pod.Namespace+"/"+f.pod.Name, "reason", f.Reason, "message", f.Message)
	case apierrors.IsAlreadyExists(err): // another replica was first
	default:
		t.metrics.events.WithLabelValues(string(f.Reason), "failed").Inc()
		t.complain(f, err)
		t.failing[e] = t.again(t.failing[e])
		if t.row++; t.row >= maxFailures {
			t.all = t.again(t.all)
		}
		return
	}
	t.told[e] = struct{}{}
	delete(t.failing, e)
	t.row, t.all = 0, failure{}
}

// again is the next failure: each comes twice as long after the one before.
func (t *teller) again(last failure) failure {
	delay := min(max(2*last.delay, t.options.Retry), 16*t.options.Retry)
	return failure{time.Now().Add(delay), delay}
}

// complain logs a failure, at most once a minute.
func (t *teller) complain(f *finding, err error) {
	if now := t.options.Now(); now.Sub(t.logged) >= time.Minute {
		t.logged = now
		t.log.Warn("cannot make an Event on a Falco pod; trying again: the ClusterRole of the chart lets the collector create events",
			"pod", f.pod.Namespace+"/"+f.pod.Name, "reason", f.Reason, "message", f.Message, "error", err)
	}
}
