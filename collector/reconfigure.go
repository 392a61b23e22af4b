package collector

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/reload"
)

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

// followed says why this process, started again in its pod, could not follow the
// configuration: it is not valid, or it goes with another pod.
func (c *Collector) followed(data []byte) error {
	cfg, err := config.Decode(data)
	if err != nil {
		return err
	}
	if err := usable(cfg); err != nil {
		return err
	}
	if err := reload.Moved(
		reload.Address{Key: "health.address", Is: cfg.Health.Address, Was: c.cfg.Health.Address},
		reload.Address{Key: "metrics.address", Is: cfg.Metrics.Address, Was: c.cfg.Metrics.Address},
		reload.Address{Key: "stream.address", Is: cfg.Stream.Address, Was: c.cfg.Stream.Address},
		reload.Address{Key: "stream.plaintext.address", Is: cfg.Stream.Plaintext.Address, Was: c.cfg.Stream.Plaintext.Address},
	); err != nil {
		return err
	}
	if err := cfg.Stream.TLS.Readable(); cfg.Stream.Enabled && err != nil {
		return fmt.Errorf("stream.tls: not in this pod, left to new pods: %w", err)
	}
	return nil
}

// WatchConfig blocks until the file holds another configuration than data, one
// that can be used, and returns reload.ErrChanged when it is time to drain; it
// returns nil when ctx ends first.
func (c *Collector) WatchConfig(ctx context.Context, file string, data []byte) error {
	return c.options.Reload.Wait(ctx, file, data, c.followed, c.leaving, c.log)
}
