package wiring

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"
)

// TestFingerprints: an authority is its name and its key, which is what clients
// verify with. One that is renewed with both is the same, for pods that were
// wired before.
func TestFingerprints(t *testing.T) {
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	serial := int64(0)
	authority := func(name string, key *ecdsa.PrivateKey) []byte {
		serial++
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotAfter: time.Unix(1_800_000_000+serial, 0), IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	key := newKey()
	first := Fingerprints(authority("ca", key))
	if len(first) != 1 || len(first[0]) != 32 {
		t.Fatalf("got %q", first)
	}
	for name, c := range map[string]struct {
		bundle []byte
		same   []bool // for each fingerprint: is it the first's
	}{
		"renewed":      {authority("ca", key), []bool{true}},
		"another key":  {authority("ca", newKey()), []bool{false}},
		"another name": {authority("ca2", key), []bool{false}},
		"two":          {slices.Concat(authority("ca2", key), authority("ca", key)), []bool{false, true}},
		"with what is no certificate": {slices.Concat(
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("?")}),
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("?")}),
			[]byte("text\n"), authority("ca", key)), []bool{true}},
		"empty": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var same []bool
			for _, f := range Fingerprints(c.bundle) {
				same = append(same, f == first[0])
			}
			if !slices.Equal(same, c.same) {
				t.Errorf("got %v, want %v", same, c.same)
			}
		})
	}
}
