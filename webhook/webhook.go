// Package webhook is the admission server that wires Falco pods: it decodes,
// lets package inject decide, and answers. It keeps its own caBundle current,
// and follows the addresses of the collector's Service.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/reload"
	"github.com/metawire/metawire/internal/version"
	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/config"
	"github.com/metawire/metawire/webhook/inject"
)

// linger is how long the server goes on after it was told to end: so long a
// Service may go on sending requests here.
const linger = 5 * time.Second

// errNotReady is why a pod is admitted as it is at first.
var errNotReady = errors.New("the webhook has not started in full: it does not know its authority and the Service of the collector yet")

// errEnding is why a webhook is not ready at last.
var errEnding = errors.New("ending")

// Webhook is the admission server.
type Webhook struct {
	cfg      *config.Config
	api      kubernetes.Interface
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *Metrics
	certs    *certs.Certs
	inject   func(*corev1.Pod, inject.Settings) (*corev1.Pod, inject.Decision)

	settings atomic.Pointer[inject.Settings] // nil until all of known is known
	distrust atomic.Pointer[string]          // why the API server does not trust us, "" if it does; nil before that is known
	keep     chan struct{}
	leaving  chan struct{} // closed when a restart is near

	// What tests shorten.
	quiet  time.Duration
	reload reload.Options

	mu    sync.Mutex
	known known
}

// known is what settings are made of besides the configuration.
type known struct {
	bundle    []byte
	service   bool // was seen: pods wired before get no addresses for life
	addresses []string
}

// New returns a webhook. It reads the TLS files, if any; it does not contact the
// API server yet.
func New(cfg *config.Config, api kubernetes.Interface, log *slog.Logger) (*Webhook, error) {
	w := &Webhook{
		cfg: cfg, api: api, log: log, registry: prometheus.NewRegistry(), inject: inject.Pod, keep: make(chan struct{}, 1), leaving: make(chan struct{}),
		quiet: quiet,
	}
	w.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	version.NewMetrics(w.registry)
	w.metrics = NewMetrics(w.registry)
	var err error
	if w.certs, err = certs.New(cfg.TLS, api, log, certs.NewMetrics(w.registry), certs.Options{}); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	w.certs.OnBundle(func(bundle []byte) {
		w.update(func(k *known) { k.bundle = bundle })
		w.wakeKeeper()
	})
	return w, nil
}

// update takes in what has become known, and makes the settings anew.
func (w *Webhook) update(change func(*known)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.known)
	if len(w.known.bundle) == 0 || !w.known.service {
		return
	}
	w.settings.Store(&inject.Settings{
		Version: version.Version, Host: w.cfg.Stream.Host, Port: w.cfg.Stream.Port,
		Addresses: w.known.addresses, CA: w.known.bundle,
		Image: w.cfg.Image.Name, ImagePullPolicy: corev1.PullPolicy(w.cfg.Image.PullPolicy), ImagePullSecrets: w.cfg.Image.PullSecrets,
		Plugin: wiring.Plugin(w.cfg.Plugin),
	})
}

// ready tells what is missing, nil if nothing.
func (w *Webhook) ready(ctx context.Context) error {
	select {
	case <-w.leaving:
		return errEnding
	case <-ctx.Done():
		return errEnding
	default:
	}
	switch {
	case w.settings.Load() == nil:
		return errNotReady
	}
	switch why := w.distrust.Load(); {
	case why == nil:
		return fmt.Errorf("it is not known yet whether the caBundle of %s verifies our certificate", w.cfg.Configuration)
	case *why != "":
		return errors.New(*why)
	}
	select {
	case <-w.certs.Ready():
		return nil
	default:
		return errors.New("no certificate yet")
	}
}

// Run serves until ctx ends, and for 5 s after that. It returns nil then, an
// error if it cannot serve.
func (w *Webhook) Run(ctx context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, failed := errgroup.WithContext(serving)
	w.metrics.ready = func() bool { return w.ready(ctx) == nil }
	mutate := http.NewServeMux()
	mutate.Handle("POST /mutate", limit(&admission.Webhook{Handler: w}))
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(rw, "ok") })
	health.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		if err := w.ready(ctx); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(rw, "ok")
	})
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(w.registry, promhttp.HandlerOpts{Registry: w.registry}))
	for _, s := range []struct {
		key, address string
		handler      http.Handler
		tls          *tls.Config
	}{
		{"address", w.cfg.Address, mutate, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: w.certs.GetCertificate}},
		{"health.address", w.cfg.Health.Address, health, nil},
		{"metrics.address", w.cfg.Metrics.Address, metrics, nil},
	} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
		if err != nil {
			stop()
			return errors.Join(fmt.Errorf("%s: %w", s.key, err), g.Wait())
		}
		g.Go(func() error { return serve(failed, l, s.handler, s.tls, w.log) })
	}
	for _, part := range []func(context.Context) error{w.certs.Start, w.followService, w.keepBundle} {
		g.Go(func() error { return part(failed) })
	}
	g.Go(func() error {
		select {
		case <-failed.Done():
			return nil
		case <-ctx.Done():
		}
		w.log.Info("ending", "in", linger)
		select {
		case <-failed.Done():
		case <-time.After(linger):
		}
		stop()
		return nil
	})
	return g.Wait()
}

// serve serves on the listener until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler, t *tls.Config, log *slog.Logger) error {
	s := &http.Server{
		Handler: h, TLSConfig: t, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	unhook := context.AfterFunc(ctx, func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if s.Shutdown(closing) != nil {
			_ = s.Close()
		}
	})
	defer unhook()
	var err error
	if t == nil {
		err = s.Serve(l)
	} else {
		err = s.ServeTLS(l, "", "")
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}
