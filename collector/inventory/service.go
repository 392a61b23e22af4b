package inventory

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"k8s.io/utils/clock"
)

// Service makes a run when it is time, or when somebody asks for one, while this
// replica holds the Lease.
type Service struct {
	State    State
	Schedule *Schedule
	// Run makes a run and blocks until it has ended; it may tell its progress from
	// its own goroutine.
	Run func(ctx context.Context, progress func(Progress)) *Report
	Log *slog.Logger
	// Metrics of the last run are told while the Lease is held; default none.
	Metrics *Metrics
	// Leader overrides how the Lease is held.
	Leader Leader

	clock clock.WithTicker
}

// Start blocks until ctx ends. A run that goes on when the Lease is lost is
// canceled; what came of it is in the log only, since another replica sends now.
func (s *Service) Start(ctx context.Context) error {
	return s.lead(ctx, func(ctx context.Context, t *term) {
		run := func(ctx context.Context, trigger string) { t.run(ctx, trigger) }
		(&scheduler{schedule: s.Schedule, asked: t.asked, run: run, clock: s.clock}).start(ctx)
	})
}

// Once makes one run, whatever the Schedule, as soon as this process holds the
// Lease: no two go on at once. If somebody asks for a run, it is this one. It
// blocks until the run has ended; the error is of what kept it from beginning.
func (s *Service) Once(ctx context.Context) (report *Report, err error) {
	ctx, done := context.WithCancel(ctx)
	defer done()
	err = s.lead(ctx, func(ctx context.Context, t *term) {
		report = t.run(ctx, t.asked(ctx))
		done()
	})
	if report == nil {
		return nil, cmp.Or(err, errors.New("ended before the run began"))
	}
	return report, nil
}

// lead calls work while this process holds the Lease.
func (s *Service) lead(ctx context.Context, work func(context.Context, *term)) error {
	leader := s.Leader
	leader.State, leader.Log = s.State, s.Log
	return leader.Run(ctx, func(ctx context.Context) {
		t := &term{Service: s, recorder: Recorder{State: s.State, Log: s.Log}}
		if status, err := s.State.Status(ctx); err != nil {
			s.Log.Warn("cannot read what was told of the last run", "error", err)
		} else {
			t.answered = status.Trigger
			s.Metrics.leads(status)
		}
		defer s.Metrics.follows()
		work(ctx, t)
	})
}

// term is the time that the Lease is held.
type term struct {
	*Service

	recorder Recorder
	answered string // the trigger
}

func (t *term) asked(ctx context.Context) string {
	lease, err := t.State.lease(ctx)
	if err != nil {
		t.Log.Debug("cannot see whether a run is asked for", "error", err)
		return ""
	}
	if id := lease.Annotations[TriggerAnnotation]; id != t.answered {
		return id
	}
	return ""
}

func (t *term) run(ctx context.Context, trigger string) *Report {
	report := t.Run(ctx, func(p Progress) {
		p.Trigger = trigger
		t.recorder.Progress(ctx, p)
	})
	if trigger != "" { // also if that cannot be told: not again and again
		t.answered = trigger
	}
	if ctx.Err() != nil {
		t.Log.Warn("inventory run canceled", "report", report)
		return report
	}
	if err := t.recorder.Done(ctx, trigger, report); err != nil {
		t.Log.Warn("cannot tell everywhere what came of the run", "error", err)
	}
	return report
}
