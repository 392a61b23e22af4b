package integration_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/wiring"
)

const certHost = "metawire-collector.metawire.svc"

// daemon is a server whose certificates are self-managed.
type daemon struct {
	*certs.Certs
	address string
	leaves  sync.Map               // serial numbers of the certificates that clients saw
	pods    atomic.Pointer[[]byte] // what the one wired pod trusts; nil: there is none
}

// leafDuration has leaves renewed about every 2 s: their dates are whole seconds.
const leafDuration = 3 * time.Second

// newDaemon starts one, which ends with the test.
func newDaemon(t *testing.T, ref certs.SecretRef) *daemon {
	t.Helper()
	d := &daemon{}
	clients, err := kubernetes.NewForConfig(apiREST)
	if err != nil {
		t.Fatal(err)
	}
	d.Certs, err = certs.New(certs.Settings{Mode: certs.ModeSelfManaged, Secret: ref, DNSNames: []string{certHost}},
		clients, slog.New(slog.NewTextHandler(t.Output(), nil)), certs.NewMetrics(prometheus.NewRegistry()), certs.Options{
			Overlap: time.Second, LeafDuration: leafDuration,
			Trusted: func(fingerprint string) bool {
				trusts := d.pods.Load()
				return trusts == nil || slices.Contains(wiring.Fingerprints(*trusts), fingerprint)
			},
		})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Start(ctx) }()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: d.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	d.address = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if tc, ok := c.(*tls.Conn); ok {
					_ = tc.HandshakeContext(ctx) // the client tells
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d
}

// ready waits for the certificate.
func (d *daemon) ready(t *testing.T) {
	t.Helper()
	select {
	case <-d.Ready():
	case <-time.After(patience):
		t.Fatal("no certificate")
	}
}

// connect connects as a client that trusts the bundle.
func (d *daemon) connect(bundle []byte) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle holds no authority")
	}
	c, err := tls.Dial("tcp", d.address, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: certHost})
	if err != nil {
		return err
	}
	d.leaves.Store(c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil)
	return c.Close()
}

// rotations is how many certificates followed the first.
func (d *daemon) rotations() int {
	n := -1
	d.leaves.Range(func(any, any) bool { n++; return true })
	return n
}

// emptySecret is what the chart renders.
func emptySecret(t *testing.T) certs.SecretRef {
	t.Helper()
	ns := newNamespace(t)
	if err := api.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "ca", Namespace: ns}}); err != nil {
		t.Fatal(err)
	}
	return certs.SecretRef{Namespace: ns, Name: "ca"}
}

// TestDaemonsShareAnAuthority: several begin at once with an empty Secret, and
// every client of one is a client of all.
func TestDaemonsShareAnAuthority(t *testing.T) {
	ref := emptySecret(t)
	var all []*daemon
	for range 4 {
		all = append(all, newDaemon(t, ref))
	}
	for _, d := range all {
		d.ready(t)
	}
	eventually(t, func() error {
		for _, server := range all {
			for _, other := range all {
				if err := server.connect(other.Bundle()); err != nil {
					return err
				}
			}
		}
		return nil
	})
	var s corev1.Secret
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &s); err != nil {
		t.Fatal(err)
	}
	if n := len(wiring.Fingerprints(s.Data["ca.crt"])); n != 1 {
		t.Errorf("%d authorities are published, want one", n)
	}
}

// TestAuthorityChanges: five changes, each asked for by the annotation and
// completed when the one wired pod is replaced, while leaves rotate. No client
// that holds what was published to it is ever refused, by either daemon.
func TestAuthorityChanges(t *testing.T) {
	ref := emptySecret(t)
	a, b := newDaemon(t, ref), newDaemon(t, ref)
	a.ready(t)
	b.ready(t)
	pod := a.Bundle()
	a.pods.Store(&pod)
	b.pods.Store(&pod)
	ctx, stop := context.WithCancel(t.Context())
	failed, connects := make(chan error, 1), 0
	go func() {
		defer close(failed)
		for ctx.Err() == nil {
			for _, d := range []*daemon{a, b} {
				if err := d.connect(*d.pods.Load()); err != nil {
					failed <- err
					return
				}
				connects++
			}
		}
	}()
	began := time.Now()
	for change := range 5 {
		rotate(t, ref, fmt.Sprint(change))
		old := wiring.Fingerprints(*a.pods.Load())
		eventually(t, func() error { // published beside the old one
			got := wiring.Fingerprints(a.Bundle())
			if len(got) != 2 || slices.Contains(old, got[1]) || !slices.Equal(got, wiring.Fingerprints(b.Bundle())) {
				return fmt.Errorf("published: %v, before: %v", got, old)
			}
			return nil
		})
		pod := a.Bundle() // the pod is replaced: it trusts both
		a.pods.Store(&pod)
		b.pods.Store(&pod)
		next := wiring.Fingerprints(pod)[1:]
		eventually(t, func() error { // which completes the change
			if got := wiring.Fingerprints(a.Bundle()); !slices.Equal(got, next) || !bytes.Equal(a.Bundle(), b.Bundle()) {
				return fmt.Errorf("published: %v, want %v", got, next)
			}
			return nil
		})
	}
	stop()
	if err := <-failed; err != nil {
		t.Error(err)
	}
	t.Logf("%d connections", connects)
	if connects < 100 {
		t.Errorf("%d connections show nothing", connects)
	}
	// One for each change, and the renewals between.
	most := 5 + int(time.Since(began)/(leafDuration/3))
	for _, d := range []*daemon{a, b} {
		if n := d.rotations(); n <= 5 || n > most {
			t.Errorf("%d certificates followed the first, want 6 to %d", n, most)
		}
	}
}

func rotate(t *testing.T, ref certs.SecretRef, value string) {
	t.Helper()
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{"metawire.dev/rotate":%q}}}`, value))
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: ref.Name, Namespace: ref.Namespace}}
	if err := api.Patch(t.Context(), s, patch); err != nil {
		t.Fatal(err)
	}
}
