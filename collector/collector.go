// Package collector puts the parts together: the source feeds the hub, the
// stream serves from it, the inventory is shipped beside them, and two small HTTP
// servers tell how that goes. Stream and inventory do without each other.
package collector

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector/access"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/collector/source"
	"github.com/metawire/metawire/collector/stream"
	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/reload"
	"github.com/metawire/metawire/internal/version"
)

// Options are what a Collector needs besides its configuration; the zero value
// is right outside of tests.
type Options struct {
	// Reload says how a changed configuration file is followed.
	Reload reload.Options
	// Stream overrides what the configuration does not decide.
	Stream stream.Options
}

// Collector serves the metadata of one cluster.
type Collector struct {
	cfg      *config.Config
	log      *slog.Logger
	options  Options
	registry *prometheus.Registry
	metrics  *Metrics
	hub      *fanout.Hub
	source   *source.Source
	guard    *access.Guard
	stream   *stream.Server // nil, like the three above, if it is not enabled
	roster   *roster.Roster
	certs    *certs.Certs  // nil without TLS
	parts    []part        // run beside the servers
	leaving  chan struct{} // closed when a restart is near
}

// New returns a collector that reads from the API server of the REST
// configuration. It reads the TLS files, if any; it does not contact the API
// server yet.
func New(cfg *config.Config, api *rest.Config, log *slog.Logger, o Options) (*Collector, error) {
	if err := usable(cfg); err != nil {
		return nil, err
	}
	c := &Collector{cfg: cfg, log: log, options: o, registry: prometheus.NewRegistry(), roster: roster.New(), leaving: make(chan struct{})}
	c.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	version.NewMetrics(c.registry)
	c.metrics = NewMetrics(c.registry)
	if cfg.Stream.Enabled {
		if err := c.addStream(api); err != nil {
			return nil, err
		}
	}
	if cfg.Inventory.Enabled {
		if err := c.addInventory(api); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// addStream sets up the stream and what feeds it.
func (c *Collector) addStream(api *rest.Config) (err error) {
	c.hub = fanout.NewHub(fanout.NewMetrics(c.registry), fanout.Options{})
	var known source.Roster // nil: nobody asks for pods and nodes by address
	if c.needsRoster() {
		known = c.roster
	}
	if c.source, err = source.New(api, c.hub, known, c.log, source.NewMetrics(c.registry)); err != nil {
		return err
	}
	c.parts = append(c.parts, c.source.Start, c.reportSync, c.sweep)
	so, s := c.options.Stream, c.cfg.Stream
	so.Burst, so.Rate, so.MaxAge = s.Pacing.Burst, s.Pacing.Rate, time.Duration(s.MaxAge)
	if err := c.secure(api, &so); err != nil {
		return err
	}
	if err := c.authorize(api, &so); err != nil {
		return err
	}
	if err := c.reportPods(api); err != nil {
		return err
	}
	c.stream = stream.New(c.hub, c.source.Synced(), c.log, stream.NewMetrics(c.registry), so)
	return nil
}

// Run serves until ctx ends, and drains then: see stream.Server.Serve. It
// returns nil after a drain, an error if it cannot serve, for example because
// an address is taken.
func (c *Collector) Run(ctx context.Context) error {
	listeners, err := c.listen(ctx)
	if err != nil {
		return err
	}
	health := c.healthHandler(ctx.Done())
	c.metrics.ready = func() bool {
		_, ready := c.missing(ctx.Done())
		return ready
	}
	// The source goes on during the drain: subscribers are served to the end.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, failed := errgroup.WithContext(serving)
	background := func(run func(context.Context) error) {
		g.Go(func() error { return run(failed) })
	}
	background(func(ctx context.Context) error { return serveHTTP(ctx, listeners.health, health) })
	background(func(ctx context.Context) error { return serveHTTP(ctx, listeners.metrics, c.metricsHandler()) })
	for _, p := range c.parts {
		background(p)
	}
	g.Go(func() error {
		draining, cancel := either(ctx, failed)
		defer cancel()
		defer stop()
		if c.stream == nil {
			<-draining.Done()
			return nil
		}
		return c.stream.Serve(draining, listeners.stream, listeners.plaintext)
	})
	return g.Wait()
}

// either returns a context that ends with the first of two.
func either(a, b context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(a)
	unhook := context.AfterFunc(b, cancel)
	return ctx, func() { unhook(); cancel() }
}

// listeners are opened before anything runs: a taken address is found at once.
// Those of the stream are nil unless they are configured.
type listeners struct{ health, metrics, stream, plaintext net.Listener }

func (c *Collector) listen(ctx context.Context) (*listeners, error) {
	l := &listeners{}
	var open []net.Listener
	streams, plaintext := c.cfg.Stream.Address, c.cfg.Stream.Plaintext.Address
	if !c.cfg.Stream.Enabled {
		streams, plaintext = "", ""
	}
	for _, a := range []struct {
		key, address string
		to           *net.Listener
	}{
		{"health.address", c.cfg.Health.Address, &l.health},
		{"metrics.address", c.cfg.Metrics.Address, &l.metrics},
		{"stream.address", streams, &l.stream},
		{"stream.plaintext.address", plaintext, &l.plaintext},
	} {
		if a.address == "" {
			continue // only those of the stream may be empty
		}
		// No keepalive of TCP's own: with the user timeout that gRPC sets, one
		// lost probe resets the connection, which Falco's plugin sees as
		// UNAVAILABLE. gRPC's pings find dead peers.
		ln, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", a.address)
		if err != nil {
			for _, o := range open {
				_ = o.Close()
			}
			return nil, fmt.Errorf("%s: %w", a.key, err)
		}
		open, *a.to = append(open, ln), ln
	}
	return l, nil
}

// reportSync logs when the first sync is complete, and what was refused.
func (c *Collector) reportSync(ctx context.Context) error {
	began := time.Now()
	select {
	case <-ctx.Done():
		return nil
	case <-c.source.Synced():
	}
	c.log.Info("synced: serving subscribers", "took", time.Since(began).Round(time.Millisecond))
	for _, s := range c.source.States() {
		if !s.Listed {
			c.log.Warn("serving without a kind that the API server refuses", "kind", s.Kind.Kind, "error", s.Refused)
		}
	}
	return nil
}

// sweep forgets old tombstones.
func (c *Collector) sweep(ctx context.Context) error {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			c.hub.Sweep()
		}
	}
}
