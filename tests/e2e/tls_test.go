package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/tests/e2e/release"
)

// testTLSSources installs the release anew with each way in which certificates
// can come, beside the one of the tests before. A Falco is wired with each, and
// the plaintext port serves one that Falco's own chart configures.
func testTLSSources(t *testing.T, w *world) {
	for _, source := range []struct {
		name    string
		tls     map[string]any
		prepare func(*testing.T)
	}{
		{"provided", map[string]any{"source": "provided", "provided": map[string]any{"secretName": "mine"}}, func(t *testing.T) { w.provide(t) }},
		{"cert-manager", map[string]any{"source": "certManager"}, func(t *testing.T) { w.startCertManager(t) }},
		{"cert-manager, an issuer", map[string]any{
			"source": "certManager", "certManager": map[string]any{"issuerRef": map[string]any{"name": "corporate", "kind": "ClusterIssuer"}},
		}, func(t *testing.T) { w.createIssuer(t) }},
	} {
		t.Run(source.name, func(t *testing.T) {
			source.prepare(t)
			if _, err := w.helm.Install(t.Context(), w.values(map[string]any{
				"tls": source.tls, "stream": map[string]any{"plaintext": map[string]any{"enabled": true}},
			}), nil, started); err != nil {
				t.Fatal(err)
			}
			// The API server has the caBundle when it is there; the first call to
			// a Service that is new may still fail, and fails open.
			w.webhookAnswers(t)
			w.putConfigMap(t, "metawire-authority", "ca.crt", string(w.bundle(t)))
			d := wired{daemon{name: "again", config: stock}, wiring.Verdict{Wired: true, Ticket: true}, true, "0.4.1", true}
			w.checkWired(t, d)
			w.remove(t, d.daemon)
			plain := daemon{name: "plaintext", config: byHand(collectorHost, 45001, "$${FALCO_K8S_NODE_NAME}", "")}
			if s := w.exactly(t, plain, w.start(t, plain)); s.TLS {
				t.Error("it should not use TLS")
			}
			w.remove(t, plain)
			thief := daemon{name: "thief", config: byHand(collectorHost, 45001, "no-such-node", ""), change: unseen}
			pod := w.start(t, thief)
			eventually(t, soon, func(ctx context.Context) error {
				s, err := thief.state(ctx, pod)
				if err == nil && len(s.Ends) == 0 {
					err = fmt.Errorf("the plaintext port has not refused another node yet: %d events", s.Events)
				}
				return err
			})
			w.remove(t, thief)
			if out, code := w.metawire(t, "check"); code != 0 {
				t.Errorf("check ended with %d:\n%s", code, out)
			}
			if err := w.helm.Uninstall(started); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// webhookAnswers waits until a dry-run Falco comes back patched.
func (w *world) webhookAnswers(t *testing.T) {
	t.Helper()
	eventually(t, soon, func(ctx context.Context) error {
		p, err := w.api.CoreV1().Pods(falcos).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "asked", Namespace: falcos},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "falco", Image: "falco:0.43.1"}}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && p.Annotations[wiring.StatusAnnotation] == "" {
			err = fmt.Errorf("the webhook has not answered")
		}
		return err
	})
}

// provide makes a Secret as a user does who has a certificate authority.
func (w *world) provide(t *testing.T) {
	t.Helper()
	ca, caKey := authority(t, nil, nil, "a company", nil)
	leaf, key := authority(t, ca, caKey, "metawire", []string{collectorHost, "metawire-webhook." + namespace + ".svc"})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	w.createSecret(t, "mine", map[string][]byte{
		"tls.crt": encode("CERTIFICATE", leaf.Raw), "tls.key": encode("PRIVATE KEY", der), "ca.crt": encode("CERTIFICATE", ca.Raw),
	})
}

func (w *world) createSecret(t *testing.T, name string, data map[string][]byte) {
	t.Helper()
	if _, err := w.api.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Type: corev1.SecretTypeTLS, Data: data,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// authority makes a certificate: an authority's own without a parent, else a
// server's with these names; changed before it is signed.
func authority(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, name string, hosts []string, change ...func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true,
	}
	for _, c := range change {
		if c != nil {
			c(template)
		}
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// startCertManager runs cert-manager's own controllers until the test ends.
func (w *world) startCertManager(t *testing.T) {
	t.Helper()
	if _, err := w.cluster.CertManager(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Helm keeps what the API server offered before.
	var err error
	if w.helm, err = release.New(w.cluster.Kubeconfig(), filepath.Join(w.temp, "cert-manager"), namespace, "metawire"); err != nil {
		t.Fatal(err)
	}
}

// createIssuer makes a ClusterIssuer as a company has one.
func (w *world) createIssuer(t *testing.T) {
	t.Helper()
	client, err := dynamic.NewForConfig(w.config)
	if err != nil {
		t.Fatal(err)
	}
	create := func(resource, namespace string, object map[string]any) {
		t.Helper()
		object["apiVersion"] = "cert-manager.io/v1"
		gvr := schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: resource}
		var err error
		if namespace == "" {
			_, err = client.Resource(gvr).Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
		} else {
			_, err = client.Resource(gvr).Namespace(namespace).Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	create("clusterissuers", "", map[string]any{
		"kind": "ClusterIssuer", "metadata": map[string]any{"name": "selfsigned"}, "spec": map[string]any{"selfSigned": map[string]any{}},
	})
	create("certificates", "cert-manager", map[string]any{
		"kind": "Certificate", "metadata": map[string]any{"name": "corporate"},
		"spec": map[string]any{
			"isCA": true, "commonName": "corporate", "secretName": "corporate",
			"issuerRef": map[string]any{"name": "selfsigned", "kind": "ClusterIssuer"},
		},
	})
	create("clusterissuers", "", map[string]any{
		"kind": "ClusterIssuer", "metadata": map[string]any{"name": "corporate"}, "spec": map[string]any{"ca": map[string]any{"secretName": "corporate"}},
	})
}

// testUpgrade: an upgrade keeps what the daemons have filled in, and cuts nobody
// off.
func testUpgrade(t *testing.T, w *world) {
	kept := func() (all [][]byte) {
		for _, name := range []string{"metawire-ca", "metawire-tickets"} {
			s, err := w.api.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"tls.crt", "tls.key", "key"} {
				all = append(all, s.Data[key])
			}
		}
		return append(all, w.bundle(t))
	}
	own := daemon{name: "upgraded", config: stock}
	pod := w.start(t, own)
	w.exactly(t, own, pod)
	before := kept()
	if _, err := w.helm.Upgrade(t.Context(), w.values(map[string]any{"collector": map[string]any{"logLevel": "debug"}}), started); err != nil {
		t.Fatal(err)
	}
	for i, now := range kept() {
		if !bytes.Equal(before[i], now) {
			t.Errorf("the upgrade has changed what the daemons keep (%d)", i)
		}
	}
	s := w.exactly(t, own, pod)
	for _, e := range s.Ends {
		if e.Code.String() != "Aborted" {
			t.Errorf("a stream ended with %s", ended(s))
		}
	}
	w.remove(t, own)
}
