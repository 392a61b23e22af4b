package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/wire"
)

// limit bounds the whole container; grace is what it has beyond that when
// something does not look at the clock.
const (
	limit = time.Minute
	grace = 5 * time.Second
)

// run does the task and returns a verdict whatever happens, after limit and
// grace at the latest.
func run(ctx context.Context, task string) wiring.Verdict {
	var t wiring.Task
	if err := json.Unmarshal([]byte(task), &t); err != nil {
		return wiring.Verdict{Reason: fmt.Sprintf("not wired: %s: %v", wiring.TaskVariable, err)}
	}
	return guard(limit+grace, func() wiring.Verdict {
		return wire.Run(ctx, t, wire.Options{Total: limit})
	})
}

// guard turns a panic, and work that does not end, into a verdict.
func guard(within time.Duration, work func() wiring.Verdict) wiring.Verdict {
	done := make(chan wiring.Verdict, 1)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				done <- wiring.Verdict{Reason: fmt.Sprintf("not wired: panic: %T", cause)} // its text may hold a secret
			}
		}()
		done <- work()
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case v := <-done:
		return v
	case <-timer.C:
		return wiring.Verdict{Reason: fmt.Sprintf("not wired: no result within %v", within)}
	}
}
