package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/metawire/metawire/internal/wiring"
)

const host = "metawire-collector.metawire.svc"

func options(trusted bool) Options {
	return Options{Trusted: func(string) bool { return trusted }}.withDefaults()
}

// settle follows the state until nothing is to be done, and returns what was.
func settle(t testing.TB, s state, now time.Time, o Options) (state, []string) {
	t.Helper()
	var done []string
	for range 10 {
		next, what, err := s.next(now, o)
		if err != nil {
			t.Fatal(err)
		}
		if what == "" {
			return next, done
		}
		s, done = next, append(done, what)
	}
	t.Fatalf("the state does not settle: %q", done)
	return s, nil
}

// verify has a client that trusts the bundle look at a leaf that is signed now.
func verify(s state, bundle []byte, now time.Time) error {
	a, err := s.signing(now)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf, err := a.sign(&x509.Certificate{
		PublicKey: key.Public(), DNSNames: []string{host},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, now, 7*24*time.Hour)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle holds no authority")
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now})
	return err
}

func TestFirstAuthority(t *testing.T) {
	now := time.Now()
	s, done := settle(t, state{}, now, options(true))
	if len(done) != 1 {
		t.Errorf("done: %q, want one step", done)
	}
	if err := verify(s, s.data[keyBundle], now); err != nil {
		t.Error(err)
	}
	if a, err := s.signing(now); err != nil || a.cert.NotAfter.Before(now.AddDate(9, 0, 0)) {
		t.Errorf("the authority is not good for ten years: %v, %v", a, err)
	}
}

func TestChangeWaitsForTrust(t *testing.T) {
	now := time.Now()
	s, _ := settle(t, state{}, now, options(true))
	old := s.data[keyBundle]
	s.annotations[rotateAnnotation] = "today"

	s, done := settle(t, s, now, options(true))
	if len(done) != 1 || !s.changing() || len(wiring.Fingerprints(s.data[keyBundle])) != 2 {
		t.Fatalf("done: %q; want both published, and no more before the overlap has passed", done)
	}
	both, overlap := s.data[keyBundle], now.Add(options(true).Overlap)
	if s, done = settle(t, s, overlap, options(false)); len(done) != 0 {
		t.Fatalf("done: %q, while a pod trusts the old one alone", done)
	}
	if s, done = settle(t, s, overlap, Options{}.withDefaults()); len(done) != 0 {
		t.Fatalf("done: %q, by a daemon that does not know the pods", done)
	}
	if err := verify(s, old, overlap); err != nil {
		t.Errorf("a client of the old authority is cut off: %v", err)
	}
	s.annotations[rotateAnnotation] = "tomorrow" // a further change waits
	s, done = settle(t, s, overlap, options(true))
	if len(done) != 2 || !s.changing() {
		t.Fatalf("done: %q, want the end of this change and the beginning of the next", done)
	}
	if err := verify(s, both, overlap); err != nil {
		t.Errorf("a client of both is cut off: %v", err)
	}
	if err := verify(s, old, overlap); err == nil {
		t.Error("the old authority still signs")
	}
}

func TestOldAuthorityIsChanged(t *testing.T) {
	now := time.Now()
	s, _ := settle(t, state{}, now, options(true))
	if _, done := settle(t, s, now.AddDate(6, 6, 0), options(false)); len(done) != 0 {
		t.Errorf("after six years and a half: %q", done)
	}
	if s, done := settle(t, s, now.AddDate(6, 9, 0), options(false)); len(done) != 1 || !s.changing() {
		t.Errorf("after two thirds of its time: %q, want a new one beside it", done)
	}
}

func TestSecretThatWasTamperedWith(t *testing.T) {
	now := time.Now()
	good, _ := settle(t, state{}, now, options(true))
	good.annotations[rotateAnnotation] = "x"
	changing, _ := settle(t, good, now, options(false))
	other, _ := settle(t, state{}, now, options(true))
	for name, c := range map[string]struct {
		from   state
		change func(map[string][]byte)
		at     time.Time
		want   string // of the first step
	}{
		"bundle lost":           {good, func(d map[string][]byte) { delete(d, keyBundle) }, now, "publish the authority"},
		"key lost":              {good, func(d map[string][]byte) { delete(d, keyKey) }, now, "replace an authority that cannot be used"},
		"another's key":         {good, func(d map[string][]byte) { d[keyKey] = other.data[keyKey] }, now, "replace"},
		"no PEM":                {good, func(d map[string][]byte) { d[keyCert] = []byte("?") }, now, "replace"},
		"expired":               {good, func(map[string][]byte) {}, now.AddDate(11, 0, 0), "replace an authority that cannot be used: the certificate expired"},
		"all lost":              {good, func(d map[string][]byte) { clear(d) }, now, "make an authority"},
		"key lost in a change":  {changing, func(d map[string][]byte) { delete(d, keyKey) }, now, "takes over at once"},
		"next lost in a change": {changing, func(d map[string][]byte) { d[keyNextKey] = nil }, now.Add(time.Hour), "give up a new authority"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.from.clone()
			c.change(s.data)
			before := maps.Clone(s.data)
			_, what, err := s.next(c.at, options(true))
			if err != nil || !strings.Contains(what, c.want) {
				t.Errorf("next: %q, %v, want %q", what, err, c.want)
			}
			if !maps.EqualFunc(before, s.data, bytes.Equal) {
				t.Error("next has changed its input")
			}
			s, _ = settle(t, s, c.at, options(true))
			if err := verify(s, s.data[keyBundle], c.at); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClientsStayConnected: whatever is asked for and whenever pods are
// replaced, each wired pod verifies what is served.
func TestClientsStayConnected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		var pods [][]byte // what each trusts
		o := Options{Trusted: func(fingerprint string) bool {
			for _, p := range pods {
				if !strings.Contains(strings.Join(wiring.Fingerprints(p), " "), fingerprint) {
					return false
				}
			}
			return true
		}}.withDefaults()
		s, _, err := state{}.next(now, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, op := range rapid.SliceOfN(rapid.IntRange(0, 4), 1, 40).Draw(t, "operations") {
			switch {
			case op == 0:
				s.annotations[rotateAnnotation] = time.Duration(i).String()
			case op == 1:
				pods = append(pods, s.data[keyBundle])
			case op == 2 && len(pods) > 0:
				pods = pods[1:]
			case op == 3:
				now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 365 * 24 * time.Hour / 12}).Draw(t, "time"))
			}
			if s, _, err = s.next(now, o); err != nil {
				t.Fatal(err)
			}
			for _, p := range append(pods, s.data[keyBundle]) {
				if err := verify(s, p, now); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
