package rotation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/tests/falco/plugin"
)

const (
	nodeName  = "rotation" // no such node is needed for its pods to be streamed
	wiredPods = 3
)

// pod is one that the webhook wired.
type pod struct {
	name   string
	trusts []byte // the bundle in its annotation
}

// wired are the wired pods that run.
type wired struct {
	mu   sync.RWMutex
	pods []pod
	made int
}

// each calls f for each pod. None is replaced meanwhile.
func (w *wired) each(f func(pod) error) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, p := range w.pods {
		if err := f(p); err != nil {
			return fmt.Errorf("pod %s, which trusts %v: %w", p.name, wiring.Fingerprints(p.trusts), err)
		}
	}
	return nil
}

// admit has a pod admitted, as a dry run or truly, and returns it. The error
// says that it is not wired.
func (r *run) admit(ctx context.Context, name string, dryRun ...string) (*corev1.Pod, []string, error) {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: nodeName, ServiceAccountName: "falco", // for its token; it need not exist
			Containers: []corev1.Container{{Name: "falco", Image: "falcosecurity/falco:0.43.1"}},
		},
	}
	p, err := r.api.CoreV1().Pods(r.namespace).Create(ctx, p, metav1.CreateOptions{DryRun: dryRun})
	if err != nil {
		return nil, nil, fmt.Errorf("a pod is refused: %w", err)
	}
	s, err := wiring.ParseStatus(p.Annotations[wiring.StatusAnnotation])
	if err != nil {
		return nil, nil, fmt.Errorf("a pod is admitted without the webhook: %w", err)
	}
	if s.Outcome != wiring.Wired || len(s.CAs) == 0 {
		return nil, nil, fmt.Errorf("a pod is admitted unwired: %s", s)
	}
	return p, s.CAs, nil
}

// rewire replaces the wired pods by others, which trust the authority with the
// fingerprint if it is not empty.
func (r *run) rewire(ctx context.Context, fingerprint string) error {
	var pods []pod
	for len(pods) < wiredPods {
		r.wired.made++
		p, cas, err := r.admit(ctx, fmt.Sprintf("falco-%d", r.wired.made))
		if err != nil {
			return err
		}
		if fingerprint != "" && !slices.Contains(cas, fingerprint) { // a webhook has not seen it yet
			if err := r.delete(ctx, p.Name); err != nil {
				return err
			}
			continue
		}
		p.Status.Phase = corev1.PodRunning
		if _, err := r.api.CoreV1().Pods(r.namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			return err
		}
		pods = append(pods, pod{p.Name, []byte(p.Annotations[wiring.CAAnnotation])})
	}
	r.wired.mu.Lock()
	before := r.wired.pods
	r.wired.pods = pods
	r.wired.mu.Unlock()
	for _, p := range before {
		if err := r.delete(ctx, p.name); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) delete(ctx context.Context, pod string) error {
	return r.api.CoreV1().Pods(r.namespace).Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
}

// work is what clients do again and again.
func (r *run) work() []func(context.Context) error {
	all := []func(context.Context) error{r.admitAndConnect, r.admitAndConnect, r.touch}
	for _, d := range r.collectors {
		all = append(all, func(ctx context.Context) error { // as wired pods
			return r.wired.each(func(p pod) error {
				r.connections.Add(1)
				return d.connect(ctx, r.host, p.trusts)
			})
		})
	}
	for _, d := range r.webhooks {
		all = append(all, func(ctx context.Context) error { // as the API server
			c, err := r.api.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, r.namespace, metav1.GetOptions{})
			if err != nil {
				return err
			}
			r.connections.Add(1)
			return d.connect(ctx, webhookHost, c.Webhooks[0].ClientConfig.CABundle)
		})
	}
	return all
}

// admitAndConnect has a pod admitted as a dry run, and connects as it would.
func (r *run) admitAndConnect(ctx context.Context) error {
	p, _, err := r.admit(ctx, "dry-run", metav1.DryRunAll)
	if err != nil {
		return err
	}
	r.admissions.Add(1)
	for _, d := range r.collectors {
		r.connections.Add(1)
		if err := d.connect(ctx, r.host, []byte(p.Annotations[wiring.CAAnnotation])); err != nil {
			return fmt.Errorf("a pod that was wired just now: %w", err)
		}
	}
	return nil
}

// touch changes a pod of the node, which its subscribers are told.
func (r *run) touch(ctx context.Context) error {
	return r.wired.each(func(p pod) error {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"touched":"%d"}}}`, time.Now().UnixNano())
		_, err := r.api.CoreV1().Pods(r.namespace).Patch(ctx, p.name, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	})
}

// subscriber is one that stays.
type subscriber struct {
	*plugin.Client

	of *daemon
}

// subscribe subscribes to each collector, as the first wired pods.
func (r *run) subscribe() error {
	return r.wired.each(func(p pod) error {
		ca := x509.NewCertPool()
		if !ca.AppendCertsFromPEM(p.trusts) {
			return errors.New("trusts nobody")
		}
		for _, d := range r.collectors {
			r.streams = append(r.streams, subscriber{plugin.Start(plugin.Options{
				Node: nodeName, Kinds: plugin.Kinds(), Target: func() string { return d.address }, CA: ca, ServerName: r.host,
			}), d})
		}
		return nil
	})
}

func (r *run) unsubscribe() {
	for _, s := range r.streams {
		s.Stop()
	}
}

// undisturbed reports which stream was.
func (r *run) undisturbed() error {
	var all error
	for _, s := range r.streams {
		if ends := s.Ends(); len(ends) > 0 {
			all = errors.Join(all, fmt.Errorf("a stream of %s ended: %v", s.of.name, ends))
		}
		if faults := s.Faults(); len(faults) > 0 {
			all = errors.Join(all, fmt.Errorf("a stream of %s: %q", s.of.name, faults))
		}
		if s.Events() == 0 {
			all = errors.Join(all, fmt.Errorf("a stream of %s had no events", s.of.name))
		}
	}
	return all
}
