package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/metawire/metawire/webhook/config"
)

const (
	// configPoll is how often the configuration file is read again.
	configPoll = 5 * time.Second
	// restartSpread bounds the random time between a change and the restart:
	// replicas must not restart together, and a helm upgrade has replaced them by
	// then.
	restartSpread = 2 * time.Minute
	// leave is how long /readyz is red before the end: so long a Service may go on
	// sending requests to a container that was not told to end by Kubernetes.
	leave = 10 * time.Second
)

// ErrConfigChanged says that the process is to end, so that it starts again
// with the new configuration.
var ErrConfigChanged = errors.New("the configuration file has changed")

// usable says what of a valid configuration this process, started again in its
// pod, could not do. Where probes and Services look, and what is mounted, is the
// pod's: with such a change come new pods, and until they serve the old ones do.
func (w *Webhook) usable(cfg *config.Config) error {
	for _, a := range []struct{ key, is, was string }{
		{"address", cfg.Address, w.cfg.Address},
		{"health.address", cfg.Health.Address, w.cfg.Health.Address},
		{"metrics.address", cfg.Metrics.Address, w.cfg.Metrics.Address},
	} {
		if a.is != a.was {
			return fmt.Errorf("%s: %q is not where this pod listens (%q): left to new pods", a.key, a.is, a.was)
		}
	}
	if err := cfg.TLS.Readable(); err != nil {
		return fmt.Errorf("tls: not in this pod, left to new pods: %w", err)
	}
	return nil
}

// WatchConfig blocks until the file holds another configuration than data, one
// that can be used, and returns ErrConfigChanged when it is time to end; it
// returns nil when ctx ends first. A file that cannot be used is reported, and
// what runs goes on.
func (w *Webhook) WatchConfig(ctx context.Context, file string, data []byte) error {
	if !w.changed(ctx, file, data) {
		return nil
	}
	wait := rand.N(w.spread) //nolint:gosec // spreads load, no secret
	w.log.Info("the configuration file has changed: restarting with it soon", "in", wait.Round(time.Second))
	if !sleep(ctx, wait) {
		return nil
	}
	close(w.leaving)
	if !sleep(ctx, w.leave) {
		return nil
	}
	return ErrConfigChanged
}

// changed blocks until the file has changed to something usable; false means
// that ctx ended first.
func (w *Webhook) changed(ctx context.Context, file string, data []byte) bool {
	for bad := data; sleep(ctx, w.poll); {
		cfg, now, err := config.Load(file)
		if errors.Is(err, os.ErrNotExist) || bytes.Equal(now, data) {
			continue
		}
		if err == nil {
			err = w.usable(cfg)
		}
		if err == nil {
			return true
		}
		if !bytes.Equal(now, bad) {
			w.log.Error("the configuration file has changed and cannot be used: going on with the old one", "error", err)
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
