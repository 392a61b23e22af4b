package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"
)

// TestLeafRenewal: DynamicSource renews a leaf when a third of the time between
// its dates is left, which is two thirds of what was asked for, and never at
// once.
func TestLeafRenewal(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		authority, leaf, atLeast, atMost time.Duration
	}{
		"by default":             {10 * 365 * 24 * time.Hour, 7 * 24 * time.Hour, 112 * time.Hour, 112 * time.Hour},
		"an hour":                {365 * 24 * time.Hour, time.Hour, 40 * time.Minute, 40 * time.Minute},
		"seconds":                {365 * 24 * time.Hour, 6 * time.Second, 3 * time.Second, 4 * time.Second},
		"longer than its time":   {24 * time.Hour, 7 * 24 * time.Hour, 12 * time.Hour, 16 * time.Hour},
		"at the end of its time": {10 * time.Minute, 7 * 24 * time.Hour, 4 * time.Minute, 7 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			cert, keyPEM, err := generate(now, c.authority)
			if err != nil {
				t.Fatal(err)
			}
			a, err := parse(cert, keyPEM, now)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := a.sign(&x509.Certificate{PublicKey: key.Public()}, now, c.leaf)
			if err != nil {
				t.Fatal(err)
			}
			got := leaf.NotAfter.Add(leaf.NotAfter.Sub(leaf.NotBefore) / -3).Sub(now)
			if got < c.atLeast || got > c.atMost {
				t.Errorf("renewed after %s, want %s to %s", got, c.atLeast, c.atMost)
			}
			if leaf.NotAfter.After(a.cert.NotAfter) {
				t.Error("it outlives its authority")
			}
			if early := now.Sub(leaf.NotBefore); early < min(c.leaf, c.authority, time.Hour)/3 {
				t.Errorf("dated back by %s only", early)
			}
		})
	}
	t.Run("an expired authority", func(t *testing.T) {
		cert, keyPEM, err := generate(now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		a, err := parse(cert, keyPEM, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.sign(&x509.Certificate{PublicKey: key.Public()}, now.Add(2*time.Hour), time.Hour); err == nil {
			t.Error("it signs")
		}
	})
}

// TestShortAuthority: one that lives for less than it is dated back is not
// changed at once.
func TestShortAuthority(t *testing.T) {
	now := time.Now()
	o := options(true)
	o.CADuration = time.Minute
	if _, done := settle(t, state{}, now, o); len(done) != 1 {
		t.Errorf("done: %q", done)
	}
}
