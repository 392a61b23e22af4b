package inventory

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/robfig/cron/v3"
	"k8s.io/utils/clock"
)

// Schedule says when runs begin.
type Schedule struct {
	times  cron.Schedule
	jitter time.Duration
}

// NewSchedule returns the schedule of cron's five fields, or of @hourly and the
// like, in a time zone of the IANA database. Each run is delayed by a random time
// below the jitter.
func NewSchedule(spec, zone string, jitter time.Duration) (*Schedule, error) {
	location, err := time.LoadLocation(zone)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: %w", zone, err)
	}
	times, err := cron.ParseStandard(spec)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", spec, err)
	}
	if s, ok := times.(*cron.SpecSchedule); ok {
		s.Location = location
	}
	return &Schedule{times, jitter}, nil
}

// Next returns when the next run after a time begins.
func (s *Schedule) Next(after time.Time) time.Time {
	next := s.times.Next(after)
	if s.jitter > 0 {
		next = next.Add(rand.N(s.jitter))
	}
	return next
}

// scheduler begins runs, one at a time, when it is time or somebody asks for one.
type scheduler struct {
	schedule *Schedule
	// asked returns the ID of a run that somebody asks for, if any.
	asked func(context.Context) string
	// run blocks until the run has ended; trigger is that ID.
	run   func(ctx context.Context, trigger string)
	clock clock.WithTicker // default the real one
	poll  time.Duration    // how often to look, default 3s
}

// start blocks until ctx ends. Time is looked at, not slept through: so neither
// a machine that was suspended nor a run that took long leaves runs to be caught
// up with.
func (s *scheduler) start(ctx context.Context) {
	if s.clock == nil {
		s.clock = clock.RealClock{}
	}
	tick := s.clock.NewTicker(cmp.Or(s.poll, 3*time.Second))
	defer tick.Stop()
	for next := s.schedule.Next(s.clock.Now()); ; {
		trigger := s.asked(ctx)
		due := !s.clock.Now().Before(next)
		if ctx.Err() != nil {
			return
		}
		if due || trigger != "" {
			s.run(ctx, trigger)
			if now := s.clock.Now(); !now.Before(next) {
				next = s.schedule.Next(now)
			}
			continue // somebody may have asked meanwhile
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
	}
}
