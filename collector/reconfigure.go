package collector

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/internal/certs"
)

// ErrConfigChanged says that the process is to end, so that it starts again
// with the new configuration.
var ErrConfigChanged = errors.New("the configuration file has changed")

// usable says what of a valid configuration this process cannot do.
func usable(cfg *config.Config) error {
	if cfg.Inventory.Enabled {
		if err := cfg.Inventory.Readable(); err != nil {
			return err
		}
	}
	if t := cfg.Stream.TLS; cfg.Stream.Enabled && t.Mode == certs.ModeFiles {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			return fmt.Errorf("stream.tls: certificate and key: %w", err)
		}
	}
	return nil
}

// followed says what of a usable configuration this process, started again in
// its pod, could not do. Where probes and Services look, and what is mounted, is
// the pod's: with such a change come new pods, and until they serve the old ones
// do.
func (c *Collector) followed(cfg *config.Config) error {
	for _, a := range []struct{ key, is, was string }{
		{"health.address", cfg.Health.Address, c.cfg.Health.Address},
		{"metrics.address", cfg.Metrics.Address, c.cfg.Metrics.Address},
		{"stream.address", cfg.Stream.Address, c.cfg.Stream.Address},
		{"stream.plaintext.address", cfg.Stream.Plaintext.Address, c.cfg.Stream.Plaintext.Address},
	} {
		if a.is != a.was {
			return fmt.Errorf("%s: %q is not where this pod listens (%q): left to new pods", a.key, a.is, a.was)
		}
	}
	if err := cfg.Stream.TLS.Readable(); cfg.Stream.Enabled && err != nil {
		return fmt.Errorf("stream.tls: not in this pod, left to new pods: %w", err)
	}
	return nil
}

// WatchConfig blocks until the file holds another configuration than data, one
// that can be used, and returns ErrConfigChanged when it is time to drain; it
// returns nil when ctx ends first. A file that cannot be used is reported, and
// what runs goes on.
func (c *Collector) WatchConfig(ctx context.Context, file string, data []byte) error {
	def := func(d, v time.Duration) time.Duration {
		if d == 0 {
			return v
		}
		return d
	}
	if !c.changed(ctx, file, data, def(c.options.ConfigPoll, 5*time.Second)) {
		return nil
	}
	wait := rand.N(def(c.options.RestartSpread, 2*time.Minute)) //nolint:gosec // spreads load, no secret
	c.log.Info("the configuration file has changed: restarting with it soon", "in", wait.Round(time.Second))
	if !sleep(ctx, wait) {
		return nil
	}
	close(c.leaving)
	if !sleep(ctx, def(c.options.Leave, 10*time.Second)) {
		return nil
	}
	return ErrConfigChanged
}

// changed blocks until the file has changed to something usable; false means
// that ctx ended first.
func (c *Collector) changed(ctx context.Context, file string, data []byte, poll time.Duration) bool {
	for bad := data; sleep(ctx, poll); {
		cfg, now, err := config.Load(file)
		if bytes.Equal(now, data) {
			continue
		}
		if err == nil {
			err = usable(cfg)
		}
		if err == nil {
			err = c.followed(cfg)
		}
		if err == nil {
			return true
		}
		if !bytes.Equal(now, bad) {
			c.log.Error("the configuration file has changed and cannot be used: going on with the old one", "error", err)
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
