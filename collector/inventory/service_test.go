package inventory

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		out, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, c := range map[string]struct{ spec, zone, after, want string }{
		"quarters":                        {"*/15 * * * *", "UTC", "2026-01-01T10:01:00Z", "2026-01-01T10:15:00Z"},
		"at that time is the next":        {"*/15 * * * *", "UTC", "2026-01-01T10:15:00Z", "2026-01-01T10:30:00Z"},
		"in a time zone":                  {"0 3 * * *", "Europe/Berlin", "2026-01-01T10:01:00Z", "2026-01-02T02:00:00Z"},
		"in summer":                       {"0 3 * * *", "Europe/Berlin", "2026-07-01T10:01:00Z", "2026-07-02T01:00:00Z"},
		"by name":                         {"@daily", "America/New_York", "2026-01-01T10:01:00Z", "2026-01-02T05:00:00Z"},
		"the hour that summer time skips": {"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := NewSchedule(c.spec, c.zone, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Next(at(c.after)); !got.Equal(at(c.want)) {
				t.Errorf("after %s comes %s, want %s", c.after, got.UTC().Format(time.RFC3339), c.want)
			}
			s.jitter = time.Minute
			for range 100 {
				if late := s.Next(at(c.after)).Sub(at(c.want)); late < 0 || late >= time.Minute {
					t.Errorf("late by %s, want less than a minute", late)
				}
			}
		})
	}
	for name, c := range map[string]struct{ spec, zone string }{
		"no such zone": {"@daily", "Mars/Olympus"}, "four fields": {"* * * *", "UTC"},
	} {
		if _, err := NewSchedule(c.spec, c.zone, 0); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// byHand is a Service whose runs the test ends, on a clock that the test moves.
type byHand struct {
	state State
	clock *testingclock.FakeClock
	began chan time.Time
	end   chan *Report

	mu    sync.Mutex
	going int
}

func startByHand(t *testing.T, spec string) *byHand {
	t.Helper()
	r := &byHand{
		state: fakeState(), clock: testingclock.NewFakeClock(time.Date(2026, 1, 1, 10, 1, 0, 0, time.UTC)),
		began: make(chan time.Time), end: make(chan *Report),
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: r.state.Lease, UID: "lease"}}
	if _, err := r.state.API.CoordinationV1().Leases(r.state.Namespace).Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	schedule, err := NewSchedule(spec, "UTC", 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{State: r.state, Schedule: schedule, Log: slog.New(slog.DiscardHandler), Run: r.makeRun, clock: r.clock}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.waits(t)
	return r
}

func (r *byHand) makeRun(ctx context.Context, progress func(Progress)) *Report {
	r.mu.Lock()
	r.going++
	doubled := r.going > 1
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.going--
		r.mu.Unlock()
	}()
	report := &Report{Run: "canceled", Result: NotSent}
	if doubled {
		return report
	}
	progress(Progress{Run: "one", Types: 2, Done: 1})
	select {
	case r.began <- r.clock.Now():
	case <-ctx.Done():
		return report
	}
	select {
	case report = <-r.end:
	case <-ctx.Done():
	}
	return report
}

// waits returns when the scheduler looks at the clock.
func (r *byHand) waits(t *testing.T) {
	t.Helper()
	inTime(t, "the scheduler waits", r.clock.HasWaiters)
}

// pass lets time pass, as it does: not at once.
func (r *byHand) pass(t *testing.T, d time.Duration) {
	t.Helper()
	for end := r.clock.Now().Add(d); r.clock.Now().Before(end); {
		r.clock.Step(time.Second)
	}
}

func (r *byHand) mustBegin(t *testing.T) time.Time {
	t.Helper()
	select {
	case at := <-r.began:
		return at
	case <-time.After(20 * time.Second):
		t.Fatal("no run begins")
		return time.Time{}
	}
}

func (r *byHand) mustNotBegin(t *testing.T) {
	t.Helper()
	select {
	case at := <-r.began:
		t.Fatalf("a run begins at %s", at)
	case <-time.After(200 * time.Millisecond):
	}
}

func inTime(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (r *byHand) status(t *testing.T) Status {
	t.Helper()
	s, err := r.state.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRunsAreNotDoubledNorCaughtUp: a run takes three quarters of an hour; the
// next begins when it is time again, once.
func TestRunsAreNotDoubledNorCaughtUp(t *testing.T) {
	t.Parallel()
	r := startByHand(t, "*/15 * * * *")
	r.mustNotBegin(t)
	r.pass(t, 14*time.Minute+10*time.Second)
	r.mustBegin(t)
	r.pass(t, 46*time.Minute)
	r.mustNotBegin(t)
	r.end <- &Report{Run: "one", Result: Complete, Ended: r.clock.Now()}
	r.mustNotBegin(t)
	r.pass(t, 14*time.Minute)
	at := r.mustBegin(t)
	if at.Minute() != 15 && at.Minute() != 16 {
		t.Errorf("the next run begins at %s, want 11:15", at)
	}
	r.end <- &Report{Run: "two", Result: Complete}
}

// TestTrigger: a run that is asked for begins at once and is answered; another
// that is asked for meanwhile follows it.
func TestTrigger(t *testing.T) {
	t.Parallel()
	r := startByHand(t, "@yearly")
	ask := func(id string) {
		if err := r.state.Ask(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	ask("first")
	r.pass(t, 3*time.Second)
	r.mustBegin(t)
	if p := r.status(t).Progress; p == nil || p.Trigger != "first" || p.Types != 2 {
		t.Errorf("the progress is %+v, want that of the trigger", p)
	}
	ask("second")
	r.end <- &Report{Run: "one", Result: Complete, Ended: r.clock.Now()}
	r.mustBegin(t)
	first := r.status(t)
	if first.Trigger != "first" || first.Report.Run != "one" || !first.LastSuccess.Equal(r.clock.Now().Truncate(time.Second)) {
		t.Errorf("the first is answered with %+v", first)
	}
	r.end <- &Report{Run: "two", Result: Partial}
	inTime(t, "the second is answered", func() bool { return r.status(t).Trigger == "second" })
	if got := r.status(t); got.Report.Run != "two" || got.Progress != nil || !got.LastSuccess.Equal(first.LastSuccess) {
		t.Errorf("the second is answered with %+v", got)
	}
	r.pass(t, 10*time.Second)
	r.mustNotBegin(t)
	var reasons []string
	inTime(t, "there are two Events", func() bool {
		list, err := r.state.API.CoreV1().Events(r.state.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		reasons = nil
		for i := range list.Items {
			reasons = append(reasons, list.Items[i].Type+" "+list.Items[i].Reason)
		}
		return len(reasons) == 2
	})
	if slices.Sort(reasons); !slices.Equal(reasons, []string{"Normal InventoryComplete", "Warning InventoryPartial"}) {
		t.Errorf("the Events are %q", reasons)
	}
}

// TestOnce: a run by hand answers whoever asks for one, once, and leaves the Lease
// to the next.
func TestOnce(t *testing.T) {
	t.Parallel()
	state := fakeState()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: state.Lease}}
	if _, err := state.API.CoordinationV1().Leases(state.Namespace).Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := state.Ask(t.Context(), "asked"); err != nil {
		t.Fatal(err)
	}
	for run, trigger := range []string{"asked", ""} {
		id := string(rune('a' + run))
		s := &Service{State: state, Log: slog.New(slog.DiscardHandler), Run: func(_ context.Context, progress func(Progress)) *Report {
			progress(Progress{Run: id})
			if status, err := state.Status(t.Context()); err != nil || status.Progress.Trigger != trigger {
				t.Errorf("run %s answers %+v, %v", id, status.Progress, err)
			}
			return &Report{Run: id, Result: Complete}
		}}
		if report, err := s.Once(t.Context()); err != nil || report.Run != id {
			t.Fatalf("%+v, %v", report, err)
		}
		if status, err := state.Status(t.Context()); err != nil || status.Report.Run != id || status.Trigger != "asked" {
			t.Errorf("after run %s the status is %+v, %v", id, status, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := (&Service{State: state, Log: slog.New(slog.DiscardHandler)}).Once(canceled); report != nil || err == nil {
		t.Errorf("without time: %+v, %v", report, err)
	}
}
