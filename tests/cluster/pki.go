package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateAge is longer than any cluster of this package runs.
const certificateAge = 365 * 24 * time.Hour

// pair is a certificate and its key.
type pair struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM []byte
	keyPEM  []byte
}

// pki is what Start keeps of a cluster's certificates; all of them are files
// in the directory pki besides.
type pki struct {
	ca    *pair
	admin *pair
}

// writePKI makes the certificates of a cluster whose API server is reached at
// addresses, and a kubeconfig <user>.kubeconfig in p.Dir for each component.
func writePKI(p plan, addresses ...string) (*pki, error) {
	dir := filepath.Join(p.Dir, "pki")
	ca, err := issue(nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "cluster-ca"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	})
	if err != nil {
		return nil, err
	}
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		},
	}
	for _, a := range addresses {
		server.IPAddresses = append(server.IPAddresses, net.ParseIP(a))
	}
	client := func(name string, groups ...string) *x509.Certificate {
		return &x509.Certificate{
			Subject:     pkix.Name{CommonName: name, Organization: groups},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
	}
	made := map[string]*pair{"ca": ca}
	for name, template := range map[string]*x509.Certificate{
		"apiserver":   server,
		"admin":       client("admin", "system:masters"),
		"kcm":         client("system:kube-controller-manager"),
		"scheduler":   client("system:kube-scheduler"),
		"proxy":       client("system:kube-proxy"),
		"kubelet":     client("system:node:"+nodeName, "system:nodes"),
		"front-proxy": client("front-proxy"),
		// Its key signs ServiceAccount tokens; the API server reads the public
		// key out of the certificate.
		"sa": client("service-accounts"),
	} {
		if made[name], err = issue(ca, template); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for name, m := range made {
		if err := os.WriteFile(filepath.Join(dir, name+".crt"), m.certPEM, 0o600); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".key"), m.keyPEM, 0o600); err != nil {
			return nil, err
		}
	}
	for file, user := range map[string]string{
		"kubeconfig": "admin", "kcm.kubeconfig": "kcm", "scheduler.kubeconfig": "scheduler",
		"proxy.kubeconfig": "proxy", "kubelet.kubeconfig": "kubelet",
	} {
		if err := writeKubeconfig(filepath.Join(p.Dir, file), p.apiURL(), user, ca, made[user]); err != nil {
			return nil, err
		}
	}
	return &pki{ca: ca, admin: made["admin"]}, nil
}

// issue makes a key and a certificate of it from template, signed by ca or,
// without one, by itself.
func issue(ca *pair, template *x509.Certificate) (*pair, error) {
	name := template.Subject.CommonName
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("serial of %s: %w", name, err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(certificateAge)
	if template.KeyUsage == 0 {
		template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", name, err)
	}
	return &pair{
		cert: cert, key: key,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// writeKubeconfig embeds the certificates: not every client resolves file
// names relative to the kubeconfig.
func writeKubeconfig(file, server, user string, ca, client *pair) error {
	b64 := base64.StdEncoding.EncodeToString
	return os.WriteFile(file, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: %s, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: test, context: {cluster: test, user: %s}}]
current-context: test
`, server, b64(ca.certPEM), user, b64(client.certPEM), b64(client.keyPEM), user), 0o600)
}

// clientTLS returns the TLS configuration of the administrator's client.
func (p *pki) clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(p.ca.cert)
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		RootCAs:      roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{p.admin.cert.Raw}, PrivateKey: p.admin.key}},
	}
}
