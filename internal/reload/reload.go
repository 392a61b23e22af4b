// Package reload tells a daemon when to end because its configuration file has
// changed, so that it is started again with the new one. It starts nothing.
package reload

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"
)

// ErrChanged says that the process is to end, so that it starts again with the
// new configuration.
var ErrChanged = errors.New("the configuration file has changed")

// Options are right as they are outside of tests.
type Options struct {
	// Poll is how often the file is read again, default 5s.
	Poll time.Duration
	// Spread bounds the random time between a change and the end, default 2m:
	// replicas must not restart together, and a helm upgrade has replaced them by
	// then.
	Spread time.Duration
	// Leave is how long /readyz is red before the end, default 10s: so long a
	// Service may go on sending callers to a container that was not told to end by
	// Kubernetes.
	Leave time.Duration
}

// Wait blocks until the file holds something else than data that usable has
// nothing against, and it is time to end: then it returns ErrChanged. It returns
// nil when ctx ends first. It closes leaving when /readyz is to be red. A file
// that cannot be used is reported once, and what runs goes on.
func (o Options) Wait(ctx context.Context, file string, data []byte, usable func(now []byte) error, leaving chan<- struct{}, log *slog.Logger) error {
	if !o.changed(ctx, file, data, usable, log) {
		return nil
	}
	wait := rand.N(cmp.Or(o.Spread, 2*time.Minute)) //nolint:gosec // spreads load, no secret
	log.Info("the configuration file has changed: restarting with it soon", "file", file, "in", wait.Round(time.Second))
	if !sleep(ctx, wait) {
		return nil
	}
	close(leaving)
	if !sleep(ctx, cmp.Or(o.Leave, 10*time.Second)) {
		return nil
	}
	return ErrChanged
}

// changed blocks until the file has changed to something usable; false means
// that ctx ended first.
func (o Options) changed(ctx context.Context, file string, data []byte, usable func([]byte) error, log *slog.Logger) bool {
	for bad := data; sleep(ctx, cmp.Or(o.Poll, 5*time.Second)); {
		now, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(now, data) {
			continue
		}
		if err == nil {
			err = usable(now)
		}
		if err == nil {
			return true
		}
		if !bytes.Equal(now, bad) {
			log.Error("the configuration file has changed and cannot be used: going on with the old one", "file", file, "error", err)
			bad = now
		}
	}
	return false
}

// sleep reports whether the time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Address is where a process listens: in the new configuration, and in the one
// that it runs with.
type Address struct{ Key, Is, Was string }

// Moved says which address has changed, nil if none has. Where probes and Services
// look is the pod's: with such a change come new pods, and until they serve the
// old ones do.
func Moved(addresses ...Address) error {
	for _, a := range addresses {
		if a.Is != a.Was {
			return fmt.Errorf("%s: %q is not where this pod listens (%q): left to new pods", a.Key, a.Is, a.Was)
		}
	}
	return nil
}
