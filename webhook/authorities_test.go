package webhook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"
)

// pair is a certificate that is its own authority, and its key, PEM.
type pair struct{ cert, key []byte }

func newPair(t testing.TB, name string, notAfter time.Time) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}
	if _, err := tls.X509KeyPair(p.cert, p.key); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTwoWebhooksConverge: two that see a new file at different times do not
// drop what the other serves with, write only when something has changed, and
// end with the new one alone.
func TestTwoWebhooksConverge(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	before, after := newPair(t, "a", start.AddDate(1, 0, 0)).cert, newPair(t, "b", start.AddDate(1, 0, 0)).cert
	var there []byte
	writes := 0
	replicas := []*authorities{{quiet: quiet}, {quiet: quiet}}
	sees := []time.Duration{10 * time.Minute, 10*time.Minute + 90*time.Second} // the new file
	for at := time.Duration(0); at < 20*time.Minute; at += 5 * time.Second {
		now := start.Add(at)
		ours := make([][]byte, len(replicas))
		for i, a := range replicas {
			ours[i] = before
			if at >= sees[i] {
				ours[i] = after
			}
			if want := a.want(now, ours[i], there); !same(want, there) {
				there = want
				writes++
			}
		}
		for i := range replicas {
			for der := range certificates(ours[i]) {
				if certificates(there)[der] == nil {
					t.Fatalf("after %s: the authority of webhook %d is not published", at, i)
				}
			}
		}
	}
	if !same(there, after) {
		t.Errorf("at last %d certificates are published", len(certificates(there)))
	}
	if writes != 3 { // the first, both, the new one alone
		t.Errorf("%d writes, want 3", writes)
	}
}

// TestForeignAuthorities: what is not ours goes after a while, and at once if it
// verifies nothing.
func TestForeignAuthorities(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ours, other := newPair(t, "ours", now.AddDate(1, 0, 0)).cert, newPair(t, "other", now.AddDate(1, 0, 0)).cert
	expired := newPair(t, "expired", now.Add(-time.Hour)).cert
	for name, c := range map[string]struct {
		there, want [][]byte
	}{
		"empty":             {nil, [][]byte{ours}},
		"ours":              {[][]byte{ours}, [][]byte{ours}},
		"another's":         {[][]byte{other}, [][]byte{ours, other}},
		"expired":           {[][]byte{expired, ours}, [][]byte{ours}},
		"no PEM":            {[][]byte{[]byte("?")}, [][]byte{ours}},
		"without a newline": {[][]byte{other[:len(other)-1]}, [][]byte{ours, other}},
	} {
		t.Run(name, func(t *testing.T) {
			a := &authorities{quiet: quiet}
			got := a.want(now, ours, slices.Concat(c.there...))
			if !same(got, slices.Concat(c.want...)) {
				t.Errorf("got %s", got)
			}
			if got := a.want(now.Add(quiet), ours, got); !same(got, ours) {
				t.Errorf("after a while: %s", got)
			}
		})
	}
}
