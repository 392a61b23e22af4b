package webhook

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// keepAgain is how often the caBundle is looked at without a reason: a patch may
// have failed, our certificate be another, an authority be in it for too long.
// It costs no request.
const keepAgain = 5 * time.Second

// one returns informers of the one object of that name.
func (w *Webhook) one(namespace, name string) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(w.api, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}))
}

// follow calls changed with every version of the informer's object, and with
// nil when it is gone, until ctx ends.
func follow(ctx context.Context, f informers.SharedInformerFactory, i cache.SharedIndexInformer, changed func(any)) error {
	if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed, UpdateFunc: func(_, o any) { changed(o) }, DeleteFunc: func(any) { changed(nil) },
	}); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	f.Start(ctx.Done())
	<-ctx.Done()
	f.Shutdown()
	return nil
}

// followService keeps the addresses of the collector's Service. One that is gone
// again leaves none.
func (w *Webhook) followService(ctx context.Context) error {
	ref := w.cfg.Stream.Service
	f := w.one(ref.Namespace, ref.Name)
	return follow(ctx, f, f.Core().V1().Services().Informer(), func(o any) {
		var addresses []string
		if s, ok := o.(*corev1.Service); ok {
			for _, ip := range s.Spec.ClusterIPs {
				if ip != corev1.ClusterIPNone {
					addresses = append(addresses, ip)
				}
			}
		}
		w.update(func(k *known) { k.addresses, k.service = addresses, k.service || o != nil })
	})
}

// keepBundle keeps the caBundle of the webhook's own configuration current.
func (w *Webhook) keepBundle(ctx context.Context) error {
	if w.cfg.Configuration == "" {
		w.trusts(nil)
		return nil
	}
	f := w.one("", w.cfg.Configuration)
	informer := f.Admissionregistration().V1().MutatingWebhookConfigurations().Informer()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-w.certs.Ready():
		}
		k := &authorities{quiet: w.quiet}
		again := time.NewTicker(keepAgain)
		defer again.Stop()
		for told := ""; ; {
			select {
			case <-ctx.Done():
				return nil
			case <-w.keep:
			case <-again.C:
			}
			obj, there, err := informer.GetStore().GetByKey(w.cfg.Configuration)
			c, ok := obj.(*admissionv1.MutatingWebhookConfiguration)
			if err != nil || !there || !ok {
				w.trusts(fmt.Errorf("there is no MutatingWebhookConfiguration %s, so the API server calls no webhook, and pods are admitted unwired", w.cfg.Configuration))
				continue
			}
			c, err = w.setBundle(ctx, c, k)
			if apierrors.IsConflict(err) {
				continue // another was faster; its version arrives by the watch
			}
			trusted := w.trustedBy(c)
			w.trusts(trusted)
			switch err = errors.Join(err, trusted); {
			case err == nil:
				told = ""
			case ctx.Err() == nil && err.Error() != told:
				w.log.Error("cannot keep the caBundle: trying again", "trusted", trusted == nil, "error", err)
				told = err.Error()
			}
		}
	})
	g.Go(func() error { return follow(ctx, f, informer, func(any) { w.wakeKeeper() }) })
	return g.Wait()
}

// trusts notes whether the API server trusts us, and else why not.
func (w *Webhook) trusts(not error) {
	why := ""
	if not != nil {
		why = not.Error()
	}
	w.distrust.Store(&why)
}

func (w *Webhook) wakeKeeper() {
	select {
	case w.keep <- struct{}{}:
	default:
	}
}

// trustedBy reports why the API server would not trust the certificate that we
// serve now, nil if it does.
func (w *Webhook) trustedBy(c *admissionv1.MutatingWebhookConfiguration) error {
	served, err := w.certs.GetCertificate(nil)
	if err != nil {
		return err
	}
	chain := make([]*x509.Certificate, len(served.Certificate))
	between := x509.NewCertPool()
	for i, der := range served.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("our certificate: %w", err)
		}
		between.AddCert(chain[i])
	}
	for _, h := range c.Webhooks {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(h.ClientConfig.CABundle)
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
			return fmt.Errorf("the API server does not trust our certificate, and pods are admitted unwired: caBundle of webhook %s: %w", h.Name, err)
		}
	}
	return nil
}

// setBundle patches every webhook of the configuration whose bundle is another
// than it should be, and returns the configuration as it is then.
func (w *Webhook) setBundle(ctx context.Context, c *admissionv1.MutatingWebhookConfiguration, k *authorities) (*admissionv1.MutatingWebhookConfiguration, error) {
	ours := w.certs.Bundle()
	if len(ours) == 0 {
		return c, errNotReady
	}
	var there [][]byte
	for _, h := range c.Webhooks {
		there = append(there, h.ClientConfig.CABundle)
	}
	want := k.want(time.Now(), ours, there...)
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type entry struct {
		Name         string       `json:"name"`
		ClientConfig clientConfig `json:"clientConfig"`
	}
	var stale []entry
	for _, h := range c.Webhooks {
		if !same(h.ClientConfig.CABundle, want) {
			stale = append(stale, entry{h.Name, clientConfig{want}})
		}
	}
	if len(stale) == 0 {
		return c, nil
	}
	// Of the version that was looked at: another webhook's authority must not be
	// written over.
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": c.ResourceVersion}, "webhooks": stale})
	if err != nil {
		return c, err
	}
	out, err := w.api.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, c.Name,
		types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: "metawire-webhook"})
	if err != nil {
		return c, fmt.Errorf("patch mutatingwebhookconfiguration %s: %w", c.Name, err)
	}
	w.log.Info("the caBundle is current", "configuration", c.Name)
	return out, nil
}
