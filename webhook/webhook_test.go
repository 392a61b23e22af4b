package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/webhook/config"
)

const patience = 20 * time.Second

// newWebhook returns one that serves with the pair, from files.
func newWebhook(t *testing.T, p pair, api *fake.Clientset) *Webhook {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	w, err := New(&config.Config{
		Address: "127.0.0.1:0", Health: config.Listener{Address: "127.0.0.1:0"}, Metrics: config.Listener{Address: "127.0.0.1:0"},
		Configuration: "metawire",
		TLS:           certs.Settings{Mode: certs.ModeFiles, CertFile: write("tls.crt", p.cert), KeyFile: write("tls.key", p.key)},
		Stream:        config.Stream{Host: "collector.n.svc", Port: 45000, Service: certs.SecretRef{Namespace: "n", Name: "collector"}},
		Image:         config.Image{Name: "metawire:1"},
	}, api, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs what keeps the webhook current until the end of the test.
func (w *Webhook) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	parts := []func(context.Context) error{w.certs.Start, w.followService, w.keepBundle}
	for _, part := range parts {
		go func() { ended <- part(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range parts {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

func eventually(t *testing.T, condition func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "collector"}, Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.0.0.1"}}}
}

func configuration(bundle []byte) *admissionv1.MutatingWebhookConfiguration {
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "metawire"},
		Webhooks:   []admissionv1.MutatingWebhook{{Name: "pods.metawire.dev", ClientConfig: admissionv1.WebhookClientConfig{CABundle: bundle}}},
	}
}

// TestWaitsForTheService: a Falco on the host's network that is admitted before
// the Service's addresses are known would be unwired for life.
func TestWaitsForTheService(t *testing.T) {
	api := fake.NewClientset(configuration(nil))
	w := newWebhook(t, newPair(t, "ca", time.Now().AddDate(1, 0, 0)), api)
	w.run(t)
	eventually(t, func() error {
		if len(w.certs.Bundle()) == 0 || w.distrust.Load() == nil || *w.distrust.Load() != "" {
			return errors.New("the certificates are not known")
		}
		return nil
	})
	if err := w.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "Service") {
		t.Errorf("ready says %v", err)
	}
	if resp := w.Handle(t.Context(), request(t, falcoPod())); !resp.Allowed || len(resp.Patches) > 0 {
		t.Errorf("before the Service is known: %+v", resp)
	}
	if _, err := api.CoreV1().Services("n").Create(t.Context(), service(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return w.ready(t.Context()) })
	if got := w.settings.Load().Addresses; !slices.Equal(got, []string{"10.0.0.1"}) {
		t.Errorf("addresses are %q", got)
	}
}

// TestReadyWhileTrusted: a caBundle that cannot be patched makes the webhook
// unready only if it does not verify what is served.
func TestReadyWhileTrusted(t *testing.T) {
	p, expired := newPair(t, "ca", time.Now().AddDate(1, 0, 0)), newPair(t, "old", time.Now().Add(-time.Hour))
	for name, c := range map[string]struct {
		bundle []byte
		ready  bool
	}{
		"ours and one to drop": {slices.Concat(expired.cert, p.cert), true},
		"another's":            {newPair(t, "other", time.Now().AddDate(1, 0, 0)).cert, false},
		"none":                 {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := fake.NewClientset(configuration(c.bundle), service())
			tried := make(chan struct{}, 100)
			api.PrependReactor("patch", "mutatingwebhookconfigurations", func(clienttesting.Action) (bool, runtime.Object, error) {
				tried <- struct{}{}
				return true, nil, errors.New("forbidden")
			})
			w := newWebhook(t, p, api)
			w.run(t)
			for range 2 {
				select {
				case <-tried:
				case <-time.After(patience):
					t.Fatal("no patch is tried")
				}
			}
			eventually(t, func() error { // the Service may become known later
				err := w.ready(t.Context())
				if (err == nil) != c.ready {
					return errors.Join(errors.New("ready says otherwise"), err)
				}
				if err != nil && !strings.Contains(err.Error(), "the API server does not trust our certificate, and pods are admitted unwired: caBundle of webhook") {
					return fmt.Errorf("it does not say why: %w", err)
				}
				return nil
			})
		})
	}
}

// TestBundleIsKept: what somebody takes away comes back.
func TestBundleIsKept(t *testing.T) {
	p := newPair(t, "ca", time.Now().AddDate(1, 0, 0))
	api := fake.NewClientset(configuration(nil), service())
	w := newWebhook(t, p, api)
	w.run(t)
	holds := func() error {
		c, err := api.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "metawire", metav1.GetOptions{})
		if err == nil && !same(c.Webhooks[0].ClientConfig.CABundle, p.cert) {
			err = errors.New("the caBundle is another")
		}
		return errors.Join(err, w.ready(t.Context()))
	}
	eventually(t, holds)
	if _, err := api.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(t.Context(), configuration(nil), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, holds)
}
