package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// retryKeep is how soon a patch that failed is tried again.
const retryKeep = 5 * time.Second

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

// followService keeps the addresses of the collector's Service.
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
		w.update(func(k *known) { k.addresses = addresses })
	})
}

// keepBundle keeps the caBundle of the webhook's own configuration current.
func (w *Webhook) keepBundle(ctx context.Context) error {
	if w.cfg.Configuration == "" {
		w.kept.Store(true)
		return nil
	}
	f := w.one("", w.cfg.Configuration)
	informer := f.Admissionregistration().V1().MutatingWebhookConfigurations().Informer()
	go func() {
		retry := time.NewTicker(retryKeep)
		defer retry.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.keep:
			case <-retry.C:
				if w.kept.Load() {
					continue
				}
			}
			obj, there, err := informer.GetStore().GetByKey(w.cfg.Configuration)
			c, ok := obj.(*admissionv1.MutatingWebhookConfiguration)
			if err != nil || !there || !ok {
				w.kept.Store(false)
				continue
			}
			err = w.setBundle(ctx, c, w.certs.Bundle())
			w.kept.Store(err == nil)
			if err != nil && ctx.Err() == nil {
				w.log.Error("cannot keep the caBundle: the API server will not trust this webhook, and pods are admitted unwired", "error", err)
			}
		}
	}()
	return follow(ctx, f, informer, func(any) { w.wakeKeeper() })
}

func (w *Webhook) wakeKeeper() {
	select {
	case w.keep <- struct{}{}:
	default:
	}
}

// setBundle patches every webhook of the configuration whose bundle is another.
func (w *Webhook) setBundle(ctx context.Context, c *admissionv1.MutatingWebhookConfiguration, bundle []byte) error {
	if len(bundle) == 0 {
		return errNotReady
	}
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type entry struct {
		Name         string       `json:"name"`
		ClientConfig clientConfig `json:"clientConfig"`
	}
	var stale []entry
	for _, h := range c.Webhooks {
		if !bytes.Equal(h.ClientConfig.CABundle, bundle) {
			stale = append(stale, entry{h.Name, clientConfig{bundle}})
		}
	}
	if len(stale) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"webhooks": stale})
	if err != nil {
		return err
	}
	_, err = w.api.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, c.Name,
		types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: "metawire-webhook"})
	if err != nil {
		return fmt.Errorf("patch mutatingwebhookconfiguration %s: %w", c.Name, err)
	}
	w.log.Info("the caBundle is current", "configuration", c.Name)
	return nil
}
