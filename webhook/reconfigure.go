package webhook

import (
	"context"
	"fmt"

	"github.com/metawire/metawire/internal/reload"
	"github.com/metawire/metawire/webhook/config"
)

// followed says why this process, started again in its pod, could not follow the
// configuration: it is not valid, or it goes with another pod.
func (w *Webhook) followed(data []byte) error {
	cfg, err := config.Decode(data)
	if err != nil {
		return err
	}
	if err := reload.Moved(
		reload.Address{Key: "address", Is: cfg.Address, Was: w.cfg.Address},
		reload.Address{Key: "health.address", Is: cfg.Health.Address, Was: w.cfg.Health.Address},
		reload.Address{Key: "metrics.address", Is: cfg.Metrics.Address, Was: w.cfg.Metrics.Address},
	); err != nil {
		return err
	}
	if err := cfg.TLS.Readable(); err != nil {
		return fmt.Errorf("tls: not in this pod, left to new pods: %w", err)
	}
	return nil
}

// WatchConfig blocks until the file holds another configuration than data, one
// that can be used, and returns reload.ErrChanged when it is time to end; it
// returns nil when ctx ends first.
func (w *Webhook) WatchConfig(ctx context.Context, file string, data []byte) error {
	return w.reload.Wait(ctx, file, data, w.followed, w.leaving, w.log)
}
