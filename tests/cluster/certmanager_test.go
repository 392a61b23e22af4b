package cluster_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/metawire/metawire/tests/cluster"
)

// chain is an authority of its own, a certificate of it, and a webhook that
// trusts the authority.
const chain = `
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: authority}
spec:
  isCA: true
  commonName: authority
  secretName: authority
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {group: cert-manager.io, kind: Issuer, name: self}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: authority}
spec: {ca: {secretName: authority}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: leaf}
spec:
  dnsNames: [webhook.default.svc]
  secretName: leaf
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {group: cert-manager.io, kind: Issuer, name: authority}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: webhook, annotations: {cert-manager.io/inject-ca-from: default/leaf}}
webhooks:
- name: webhook.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {namespace: default, name: webhook}}
`

func TestCertManager(t *testing.T) {
	c := start(t, cluster.Options{Size: cluster.ControlPlane})
	stop, err := c.CertManager(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	must(t, c, "", "get", "namespace", cluster.CertManagerNamespace)
	must(t, c, chain, "apply", "-f", "-")

	var ca []byte
	t.Run("issues", func(t *testing.T) {
		must(t, c, "", "wait", "--for=condition=Ready", "certificate/leaf", "--timeout="+patience.String())
		var secret struct {
			Data map[string][]byte `json:"data"`
		}
		if err := json.Unmarshal([]byte(must(t, c, "", "get", "secret", "leaf", "-o", "json")), &secret); err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
		if err != nil {
			t.Fatal(err)
		}
		ca = secret.Data["ca.crt"]
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			t.Fatalf("no certificate in ca.crt: %q", ca)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "webhook.default.svc"}); err != nil {
			t.Error(err)
		}
	})
	t.Run("injects", func(t *testing.T) {
		eventually(t, func() string {
			bundle := must(t, c, "", "get", "mutatingwebhookconfiguration", "webhook", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
			if bundle != base64.StdEncoding.EncodeToString(ca) {
				return "caBundle: " + bundle
			}
			return ""
		})
	})
	t.Run("stops", func(t *testing.T) {
		for range 2 {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
		if command, _ := certManager(t, c); command != "" {
			t.Errorf("left: %s", command)
		}
	})
	t.Run("starts again", func(t *testing.T) {
		if _, err := c.CertManager(t.Context()); err != nil {
			t.Fatal(err)
		}
		must(t, c, "", "delete", "secret", "leaf")
		must(t, c, "", "wait", "--for=create", "secret/leaf", "--timeout="+patience.String())
	})
}

func TestCertManagerEnds(t *testing.T) {
	dir := tempDir(t)
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: dir, Size: cluster.ControlPlane, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := c.CertManager(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, pid := certManager(t, c)
	if pid == 0 {
		t.Fatal("cert-manager does not run")
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		command, _ := certManager(t, c)
		return command
	})
	for name, stop := range map[string]func() error{"stop": stop, "Stop": c.Stop} {
		if err := stop(); err == nil || !strings.Contains(err.Error(), "certmanager ended: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := c.CertManager(t.Context()); err == nil {
		t.Error("started beside a cluster that is stopped")
	}
}

// certManager returns the command line and pid of the cluster's cert-manager.
func certManager(t *testing.T, c *cluster.Cluster) (command string, pid int) {
	t.Helper()
	for command, pid := range processes(t, "-kubeconfig="+c.Kubeconfig()) {
		if strings.Contains(command, "certmanager ") {
			return command, pid
		}
	}
	return "", 0
}
