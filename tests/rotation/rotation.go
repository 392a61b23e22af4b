// Package rotation changes certificates and authorities under load and shows
// that nobody notices: webhooks and collectors in this process, two each, on a
// real API server, which admits Falco pods through the webhooks meanwhile;
// subscribers that stay, and clients that come and go, trust what wired pods do.
package rotation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/internal/wiring"
)

// Options say how much changes.
type Options struct {
	API *rest.Config
	// Changes of the authority, and Leaves, how often each daemon's certificate is
	// renewed at least besides.
	Changes, Leaves int
	// Overlap is how long two authorities are published together at least, twice a
	// change, default 1s; LeafDuration is how long certificates are good for,
	// default 3s: they are renewed about every 2 s. Dates are whole seconds.
	Overlap, LeafDuration time.Duration
	// Log is told how far it is and what the daemons say, default: nobody is.
	Log *slog.Logger
}

// Result is what came of it. There is none with a failure.
type Result struct {
	Took time.Duration
	// Changes and Leaves are what was asked for, and may be more for leaves: those
	// of the daemon with the fewest.
	Changes, Leaves int
	// Admissions are the pods that were admitted as a dry run, each wired.
	Admissions int64
	// Connections are the TLS clients that came and went, as wired pods and as the
	// API server.
	Connections int64
	// Streams are the subscribers that stayed, Events what they received.
	Streams, Events int
}

// Run blocks until all has changed, and leaves nothing behind. The error says
// who noticed what: a pod that was admitted unwired, a stream that ended, a
// client that was refused.
func Run(ctx context.Context, o Options) (result Result, err error) {
	if o.Overlap == 0 {
		o.Overlap = time.Second
	}
	if o.LeafDuration == 0 {
		o.LeafDuration = 3 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	began := time.Now()
	api := rest.CopyConfig(o.API)
	api.QPS = -1
	client, err := kubernetes.NewForConfig(api)
	if err != nil {
		return result, err
	}
	r := &run{Options: o, api: client}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	daemons, failed := errgroup.WithContext(serving)
	defer func() {
		stop()
		err = errors.Join(err, daemons.Wait(), r.remove(context.WithoutCancel(ctx)))
	}()
	if err := r.prepare(failed); err != nil {
		return result, err
	}
	if err := r.start(failed, daemons, api); err != nil {
		return result, err
	}
	if err := r.load(failed); err != nil {
		return result, err
	}
	result = Result{
		Took: time.Since(began), Changes: o.Changes, Leaves: r.renewals(), Admissions: r.admissions.Load(), Connections: r.connections.Load(),
		Streams: len(r.streams),
	}
	for _, s := range r.streams {
		result.Events += s.Events()
	}
	return result, nil
}

// run is one that is under way.
type run struct {
	Options

	api       *kubernetes.Clientset
	namespace string
	host      string // the DNS name of the collectors' Service

	collectors, webhooks []*daemon
	relay                *relay // to the webhooks
	wired                wired
	streams              []subscriber
	changes              atomic.Int64 // done

	admissions, connections atomic.Int64
}

// load changes everything while clients work, and ends with the first that
// notices.
func (r *run) load(ctx context.Context) error {
	if err := r.rewire(ctx, ""); err != nil {
		return err
	}
	if err := r.subscribe(); err != nil { //nolint:contextcheck // a subscriber ends by Stop
		return err
	}
	defer r.unsubscribe()
	g, ctx := errgroup.WithContext(ctx)
	working, done := context.WithCancel(ctx)
	defer done()
	for _, work := range r.work() {
		g.Go(func() error {
			for working.Err() == nil {
				if err := work(working); err != nil && working.Err() == nil {
					return err
				}
				_ = pause(working, 5*time.Millisecond)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer done()
		for n := range r.Changes {
			if err := r.change(working, n); err != nil {
				return fmt.Errorf("change %d: %w", n+1, err)
			}
			r.changes.Add(1)
			r.Log.Info("the authority has changed", "changes", n+1, "renewals", r.renewals(), "admissions", r.admissions.Load(), "connections", r.connections.Load())
		}
		return r.until(working, "leaves are renewed", func(context.Context) error {
			if n := r.renewals(); n < r.Leaves {
				return fmt.Errorf("a daemon has renewed its certificate %d times, want %d", n, r.Leaves)
			}
			return nil
		})
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return r.undisturbed()
}

// change has the authority changed, and replaces the wired pods, which completes
// it.
func (r *run) change(ctx context.Context, n int) error {
	before, err := r.secret(ctx)
	if err != nil {
		return err
	}
	old := before.Data["tls.crt"]
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"metawire.dev/rotate":"%d"}}}`, n+1)
	if _, err := r.api.CoreV1().Secrets(r.namespace).Patch(ctx, secretName, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	var next string
	if err := r.until(ctx, "the successor is published", func(ctx context.Context) error {
		s, err := r.secret(ctx)
		if err != nil {
			return err
		}
		all := wiring.Fingerprints(s.Data["next.crt"])
		if len(all) != 1 {
			return errors.New("there is none")
		}
		next = all[0]
		return nil
	}); err != nil {
		return err
	}
	// Pods that do not trust it hold the change up.
	if err := pause(ctx, 2*r.Overlap); err != nil {
		return err
	}
	if s, err := r.secret(ctx); err != nil || !bytes.Equal(s.Data["tls.crt"], old) {
		return fmt.Errorf("the successor signs before the pods trust it: %w", err)
	}
	if err := r.rewire(ctx, next); err != nil {
		return err
	}
	return r.until(ctx, "the change is complete", func(ctx context.Context) error {
		s, err := r.secret(ctx)
		if err != nil {
			return err
		}
		if got := wiring.Fingerprints(s.Data["ca.crt"]); len(got) != 1 || got[0] != next {
			return fmt.Errorf("published: %v, want %s", got, next)
		}
		return r.changed(ctx, old)
	})
}

// changed returns nil when each collector shows a certificate of the new
// authority: pods that were wired during the overlap come back, and a client of
// the old one alone does not, else nothing has changed.
func (r *run) changed(ctx context.Context, old []byte) error {
	for _, d := range r.collectors {
		if err := r.wired.each(func(p pod) error { return d.connect(ctx, r.host, p.trusts) }); err != nil {
			return err
		}
		if err := d.connect(ctx, r.host, old); err == nil {
			return fmt.Errorf("%s still has a certificate of the old authority", d.name)
		}
	}
	return nil
}

// renewals is how often the daemon with the fewest renewed its certificate, but
// for the changes of the authority.
func (r *run) renewals() int {
	least := -1
	for _, d := range append(r.collectors, r.webhooks...) {
		if n := d.certificates() - 1 - int(r.changes.Load()); least < 0 || n < least {
			least = n
		}
	}
	return max(least, 0)
}

func (r *run) secret(ctx context.Context) (*corev1.Secret, error) {
	return r.api.CoreV1().Secrets(r.namespace).Get(ctx, secretName, metav1.GetOptions{})
}

// patience is how long one step may take that waits for others.
const patience = time.Minute

// until waits for the condition, for patience or, with leaves to be renewed,
// for as long as that may take.
func (r *run) until(ctx context.Context, what string, condition func(context.Context) error) error {
	deadline := time.Now().Add(patience + time.Duration(r.Leaves)*2*r.LeafDuration)
	for {
		err := condition(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in time: %s: %w", what, err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
