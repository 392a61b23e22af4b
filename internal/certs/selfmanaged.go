package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	cmtls "github.com/cert-manager/cert-manager/pkg/server/tls"
	cmauthority "github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// recheck is how often it is asked whether a change can be completed: that
// depends on pods and on time, not on the Secret. It costs no request.
const recheck = 2 * time.Second

// selfManaged signs its own certificates with the authority of a Secret, which
// it makes and changes together with the other daemons.
type selfManaged struct {
	settings Settings
	api      kubernetes.Interface
	log      *slog.Logger
	metrics  *Metrics
	options  Options
	leaves   *cmtls.DynamicSource

	// Of Run alone.
	held state  // what was taken last, should the Secret lose it
	told string // the failure that was logged last

	mu      sync.Mutex
	current *authority // nil before the Secret was read
	watches map[chan<- struct{}]struct{}
	wake    chan struct{}
	bundles chan []byte // the latest, until it is published
}

func newSelfManaged(s Settings, api kubernetes.Interface, log *slog.Logger, m *Metrics, o Options) *selfManaged {
	a := &selfManaged{
		settings: s, api: api, metrics: m, options: o,
		log:     log.With("secret", s.Secret.Namespace+"/"+s.Secret.Name),
		watches: map[chan<- struct{}]struct{}{}, wake: make(chan struct{}, 1), bundles: make(chan []byte, 1),
	}
	a.leaves = &cmtls.DynamicSource{DNSNames: s.DNSNames, Authority: a, RetryInterval: 100 * time.Millisecond}
	return a
}

func (a *selfManaged) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return a.leaves.GetCertificate(hello)
}

// start implements source. The DynamicSource runs the authority: see Run.
func (a *selfManaged) start(ctx context.Context, published func([]byte)) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case b := <-a.bundles:
				published(b)
			}
		}
	}()
	err := a.leaves.Start(ctx)
	<-done
	return err
}

// Run implements the Authority of a DynamicSource: it blocks until ctx ends.
func (a *selfManaged) Run(ctx context.Context) error {
	ref := a.settings.Secret
	factory := informers.NewSharedInformerFactoryWithOptions(a.api, 0, informers.WithNamespace(ref.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, ref.Name).String()
		}))
	informer := factory.Core().V1().Secrets().Informer()
	wake := func(any) {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake,
	}); err != nil {
		return fmt.Errorf("watch secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	wake(nil)
	tick := time.NewTicker(min(recheck, a.options.Overlap/2+time.Millisecond))
	defer tick.Stop()
	missing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-tick.C:
		}
		obj, there, err := informer.GetStore().GetByKey(ref.Namespace + "/" + ref.Name)
		secret, ok := obj.(*corev1.Secret)
		if err != nil || !there || !ok {
			if !missing {
				a.log.Error("the Secret of the authority is missing: it is part of the chart, and stays empty there; install the release again (helm upgrade)")
			}
			missing = true
			continue
		}
		missing = false
		a.step(ctx, secret)
	}
}

// step takes in the Secret, and writes what should follow. Of several daemons
// one succeeds; the others see what it wrote. An authority that is there is
// served even if nothing can be written.
func (a *selfManaged) step(ctx context.Context, secret *corev1.Secret) {
	now := time.Now()
	s := state{secret.Data, secret.Annotations}
	written, err := a.write(ctx, secret, s, now)
	switch {
	case err == nil:
		s, a.told = written, ""
	case apierrors.IsConflict(err):
		return // another was first; its version arrives by the watch
	case ctx.Err() == nil && err.Error() != a.told:
		a.log.Error("cannot keep the authority: trying again", "error", err)
		a.told = err.Error()
	}
	a.take(s, now)
}

// write returns the state that the Secret has come to.
func (a *selfManaged) write(ctx context.Context, secret *corev1.Secret, s state, now time.Time) (state, error) {
	next, what := s.recall(a.held, now)
	if what == "" {
		var err error
		if next, what, err = s.next(now, a.options); err != nil || what == "" {
			return s, err
		}
	}
	out := secret.DeepCopy()
	out.Data, out.Annotations = next.data, next.annotations
	written, err := a.api.CoreV1().Secrets(secret.Namespace).Update(ctx, out, metav1.UpdateOptions{FieldManager: "metawire"})
	if err != nil {
		return s, fmt.Errorf("write secret %s/%s, to %s: %w", secret.Namespace, secret.Name, what, err)
	}
	a.log.Info("the authority's Secret is written", "to", what)
	a.metrics.changes.Inc()
	return state{written.Data, written.Annotations}, nil
}

// take makes the state the one that is published and signed with, if it has an
// authority.
func (a *selfManaged) take(s state, now time.Time) {
	current, err := s.signing(now)
	if err != nil {
		return
	}
	a.held = s
	a.metrics.authority(current.cert, s.changing())
	select { // the latest bundle replaces one that is not published yet
	case <-a.bundles:
	default:
	}
	a.bundles <- s.bundle()
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := a.current == nil || !a.current.cert.Equal(current.cert)
	a.current = current
	if !changed {
		return
	}
	for w := range maps.Keys(a.watches) {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// WatchRotation implements the Authority of a DynamicSource.
func (a *selfManaged) WatchRotation(ch chan<- struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watches[ch] = struct{}{}
}

// StopWatchingRotation implements the Authority of a DynamicSource.
func (a *selfManaged) StopWatchingRotation(ch chan<- struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.watches, ch)
}

// Sign implements the Authority of a DynamicSource.
func (a *selfManaged) Sign(template *x509.Certificate) (*x509.Certificate, error) {
	a.mu.Lock()
	current := a.current
	a.mu.Unlock()
	if current == nil {
		return nil, cmauthority.ErrCertificateNotAvailable
	}
	return current.sign(template, time.Now(), a.options.LeafDuration)
}
