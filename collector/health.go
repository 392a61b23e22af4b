package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/metawire/metawire/collector/source"
)

// healthHandler serves /healthz, which is green while the process serves, and
// /readyz, which is green when the first sync is complete, there is a certificate
// and no drain has begun; else it names what is missing.
func (c *Collector) healthHandler(draining <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		missing, ready := c.missing(draining)
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if missing != "" {
			_, _ = fmt.Fprintln(w, missing)
		}
		if c.source != nil && missing != ending {
			writeStates(w, c.source.States())
		}
		if ready {
			_, _ = fmt.Fprintln(w, "ok")
		}
	})
	return mux
}

// ending is what is missing during a drain.
const ending = "draining"

// missing reports whether the collector is ready, and what is missing; nothing
// is said of the first sync, which writeStates tells of.
func (c *Collector) missing(draining <-chan struct{}) (what string, ready bool) {
	switch {
	case closed(draining) || closed(c.leaving):
		return ending, false
	case c.certs != nil && !closed(c.certs.Ready()):
		return "no certificate yet", false
	default:
		return "", c.source == nil || closed(c.source.Synced())
	}
}

// writeStates names the kinds that are missing.
func writeStates(w io.Writer, states []source.State) {
	for _, s := range states {
		switch {
		case s.Refused != nil:
			_, _ = fmt.Fprintf(w, "%s: refused: %v\n", s.Kind.Kind, s.Refused)
		case !s.Listed:
			_, _ = fmt.Fprintf(w, "%s: not listed yet\n", s.Kind.Kind)
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (c *Collector) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.registry, promhttp.HandlerOpts{Registry: c.registry}))
	return mux
}

// serveHTTP serves on the listener until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.Shutdown(closing) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}
