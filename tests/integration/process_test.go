package integration_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/tests/falco/plugin"
)

// gracePeriod is what Kubernetes gives a pod by default.
const gracePeriod = 30 * time.Second

// TestTermination: after SIGTERM the subscribers get ABORTED, /readyz is red at
// once, and the process ends with 0 within its grace period.
func TestTermination(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	create(t, newPod(ns, "pod", ns+"-a"))
	c := started(t, setup{kubeconfig: plane.Kubeconfig()})
	subscribers := map[string]*plugin.Client{}
	for _, node := range []string{ns + "-a", ns + "-b"} {
		subscribers[node] = subscribe(t, node, c.at)
	}
	converge(t, subscribers)
	c.signal(t, syscall.SIGTERM)
	eventually(t, func() error {
		if code, body := c.get(t, "readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
			return fmt.Errorf("/readyz answers %d: %s", code, body)
		}
		return nil
	})
	// Served to the end.
	create(t, newPod(ns, "late", ns+"-a"))
	converge(t, map[string]*plugin.Client{ns + "-a": subscribers[ns+"-a"]})
	if code := c.exit(t, gracePeriod); code != 0 {
		t.Errorf("ended with %d, want 0", code)
	}
	for node, s := range subscribers {
		if ends := s.Ends(); len(ends) == 0 || ends[0].Code != codes.Aborted {
			t.Errorf("node %s: the stream ended with %v, want ABORTED", node, ends)
		}
	}
}

// TestTerminationBeforeTheSync: without an API server it ends as cleanly.
func TestTerminationBeforeTheSync(t *testing.T) {
	t.Parallel()
	c := start(t, setup{kubeconfig: kubeconfig(t, "https://"+freeAddress(t), "token")})
	s := subscribe(t, "node", c.at)
	c.logs.line(t, "subscribed", "node=node")
	c.signal(t, syscall.SIGTERM)
	if code := c.exit(t, gracePeriod); code != 0 {
		t.Errorf("ended with %d, want 0", code)
	}
	if ends := s.Ends(); len(ends) == 0 || ends[0].Code != codes.Aborted {
		t.Errorf("the stream ended with %v, want ABORTED", ends)
	}
}

// TestConfigEdit: an edit that makes no sense is reported and ignored; one that
// does is taken up. (How a restart goes is tested in package collector: here it
// is at a random time within minutes.)
func TestConfigEdit(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	node := ns + "-a"
	create(t, newPod(ns, "pod", node))
	c := started(t, setup{kubeconfig: plane.Kubeconfig()})
	s := map[string]*plugin.Client{node: subscribe(t, node, c.at)}
	converge(t, s)
	good, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, c.config, string(good)+"  maxAgee: 1h\n")
	c.logs.line(t, "level=ERROR", c.config, "maxAgee", "going on with the old one")
	create(t, newPod(ns, "another", node))
	converge(t, s)
	writeFile(t, c.config, string(good)+"  maxAge: 1h\n")
	c.logs.line(t, "level=INFO", "has changed", "restarting")
	if ends := s[node].Ends(); len(ends) > 0 {
		t.Errorf("the stream ended: %v", ends)
	}
	c.signal(t, syscall.SIGTERM) // that it waits to restart does not keep it
	if code := c.exit(t, gracePeriod); code != 0 {
		t.Errorf("ended with %d, want 0", code)
	}
}

// TestOneEncodingPerVersion: whatever the number of subscribers.
func TestOneEncodingPerVersion(t *testing.T) {
	const subscribers, versions = 20, 10
	ns := newNamespace(t)
	node := ns + "-a"
	pod := newPod(ns, "pod", node)
	create(t, pod)
	c := started(t, setup{kubeconfig: plane.Kubeconfig()})
	all := make([]*plugin.Client, subscribers)
	for i := range all {
		all[i] = subscribe(t, node, c.at)
	}
	everyone := func() {
		t.Helper()
		converge(t, map[string]*plugin.Client{node: all[0]})
		want := all[0].Table()
		for _, s := range all {
			eventually(t, func() error {
				if diff := cmp.Diff(want, s.Table(), protocmp.Transform()); diff != "" {
					return fmt.Errorf("(-first +other subscriber):\n%s", diff)
				}
				return nil
			})
		}
	}
	everyone()
	before := c.metric(t, "metawire_stream_encodings_total", nil)
	for i := range versions {
		change(t, pod, func(p *corev1.Pod) { p.Labels["version"] = fmt.Sprint(i) })
		everyone()
	}
	if n := c.metric(t, "metawire_stream_encodings_total", nil) - before; n != versions {
		t.Errorf("%v encodings of %d versions for %d subscribers", n, versions, subscribers)
	}
	if n := c.metric(t, "metawire_stream_events_total", map[string]string{"kind": "Pod", "reason": "Update"}); n != subscribers*versions {
		t.Errorf("%v Updates counted, want %d", n, subscribers*versions)
	}
}

// TestCertificateReload: newcomers are shown the new certificate, and the
// streams that are open go on.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	old := writeCertificate(t, certFile, keyFile)
	ns := newNamespace(t)
	node := ns + "-a"
	create(t, newPod(ns, "pod", node))
	c := started(t, setup{kubeconfig: plane.Kubeconfig(), tls: fmt.Sprintf("{mode: files, certFile: %q, keyFile: %q}", certFile, keyFile)})
	watch := func(ca *x509.CertPool) map[string]*plugin.Client {
		s := plugin.Start(plugin.Options{Node: node, Kinds: allKinds(), Target: c.at, CA: ca})
		t.Cleanup(s.Stop)
		return map[string]*plugin.Client{node: s}
	}
	first := watch(old)
	converge(t, first)
	renewed := writeCertificate(t, certFile, keyFile)
	eventually(t, func() error {
		conn, err := tls.Dial("tcp", c.stream, &tls.Config{RootCAs: renewed, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
		if err != nil {
			return fmt.Errorf("the new certificate is not shown: %w", err)
		}
		return conn.Close()
	})
	create(t, newPod(ns, "another", node))
	converge(t, first)
	converge(t, watch(renewed))
	if ends := first[node].Ends(); len(ends) > 0 {
		t.Errorf("the stream from before ended: %v", ends)
	}
}

// writeCertificate writes a new one for 127.0.0.1 and returns what verifies it.
func writeCertificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	writeFile(t, certFile, string(cert))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}
