package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
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
	if len(done) != 1 || !s.changing() || !bytes.Equal(s.data[keyBundle], both) {
		t.Fatalf("done: %q; want the new one to sign, and both to be published still", done)
	}
	if err := verify(s, old, overlap); err == nil {
		t.Error("the old authority still signs")
	}
	s, done = settle(t, s, overlap.Add(options(true).Overlap), Options{}.withDefaults())
	if len(done) != 2 || len(s.data[keyOldCert]) > 0 || bytes.Contains(s.data[keyBundle], old) || len(wiring.Fingerprints(s.data[keyBundle])) != 2 {
		t.Fatalf("done: %q, want the end of this change and the beginning of the next", done)
	}
	if err := verify(s, both, overlap); err != nil {
		t.Errorf("a client of both is cut off: %v", err)
	}
}

// TestOverlapIsWhole: what is noted of the time is not rounded to seconds.
func TestOverlapIsWhole(t *testing.T) {
	now := time.Unix(1_800_000_000, 900_000_000)
	o := options(true)
	o.Overlap = time.Second
	s, _ := settle(t, state{}, now, o)
	s.annotations[rotateAnnotation] = "x"
	s, _ = settle(t, s, now, o)
	if _, done := settle(t, s, now.Add(200*time.Millisecond), o); len(done) > 0 {
		t.Errorf("after 0.2 s of a second: %q", done)
	}
}

// TestRotateAnnotationRemoved: only a value asks for a change.
func TestRotateAnnotationRemoved(t *testing.T) {
	now := time.Now()
	s, _ := settle(t, state{annotations: map[string]string{rotateAnnotation: "x"}}, now, options(true))
	delete(s.annotations, rotateAnnotation)
	if _, done := settle(t, s, now, options(true)); len(done) > 0 {
		t.Errorf("done: %q", done)
	}
	s.annotations[rotateAnnotation] = "x" // put back: it was done
	if _, done := settle(t, s, now, options(true)); len(done) > 0 {
		t.Errorf("done: %q", done)
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
	signing, _ := settle(t, changing, now.Add(time.Hour), options(true))
	other, _ := settle(t, state{}, now, options(true))
	for name, c := range map[string]struct {
		from   state
		change func(map[string][]byte)
		at     time.Time
		want   string // of the first step
	}{
		"bundle lost":               {good, func(d map[string][]byte) { delete(d, keyBundle) }, now, "publish the authority"},
		"key lost":                  {good, func(d map[string][]byte) { delete(d, keyKey) }, now, "replace an authority that cannot be used"},
		"another's key":             {good, func(d map[string][]byte) { d[keyKey] = other.data[keyKey] }, now, "replace"},
		"no PEM":                    {good, func(d map[string][]byte) { d[keyCert] = []byte("?") }, now, "replace"},
		"expired":                   {good, func(map[string][]byte) {}, now.AddDate(11, 0, 0), "replace an authority that cannot be used: the certificate expired"},
		"all lost":                  {good, func(d map[string][]byte) { clear(d) }, now, "make an authority"},
		"key lost in a change":      {changing, func(d map[string][]byte) { delete(d, keyKey) }, now, "takes over at once"},
		"bundle lost in a change":   {changing, func(d map[string][]byte) { delete(d, keyBundle) }, now, "publish"},
		"bundle cut in a change":    {changing, func(d map[string][]byte) { d[keyBundle] = d[keyCert] }, now, "publish"},
		"bundle lost after it":      {signing, func(d map[string][]byte) { delete(d, keyBundle) }, now.Add(time.Hour), "publish"},
		"next is no PEM":            {changing, func(d map[string][]byte) { d[keyNextCert] = []byte("?") }, now, "give up a new authority"},
		"next is two":               {changing, func(d map[string][]byte) { d[keyNextCert] = append(d[keyNextCert], d[keyCert]...) }, now, "give up a new authority"},
		"next is another's":         {changing, func(d map[string][]byte) { d[keyNextKey] = other.data[keyKey] }, now, "give up a new authority"},
		"old is no PEM":             {signing, func(d map[string][]byte) { d[keyOldCert] = []byte("?") }, now.Add(time.Hour), "drop"},
		"all but next lost":         {changing, func(d map[string][]byte) { delete(d, keyKey); delete(d, keyCert) }, now, "takes over at once"},
		"key lost after the change": {signing, func(d map[string][]byte) { delete(d, keyKey) }, now.Add(time.Hour), "replace"},
		"next lost in a change":     {changing, func(d map[string][]byte) { d[keyNextKey] = nil }, now.Add(time.Hour), "give up a new authority"},
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
// replaced, each wired pod and the API server verify what is served, by and
// from daemons too that see the Secret as it was up to an overlap ago.
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
		type version struct {
			state

			until time.Time // when the next one was written
		}
		var before []version
		for i, op := range rapid.SliceOfN(rapid.IntRange(0, 4), 1, 40).Draw(t, "operations") {
			before = slices.DeleteFunc(before, func(v version) bool { return !now.Before(v.until.Add(o.Overlap)) })
			seen := []state{s}
			for _, v := range before {
				seen = append(seen, v.state)
			}
			switch {
			case op == 0:
				s = s.clone()
				s.annotations[rotateAnnotation] = time.Duration(i).String()
			case op == 1:
				pods = append(pods, rapid.SampledFrom(seen).Draw(t, "seen by the webhook").data[keyBundle])
			case op == 2 && len(pods) > 0:
				pods = pods[1:]
			case op == 3:
				now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, 31 * time.Second, time.Minute, 365 * 24 * time.Hour / 12}).Draw(t, "time"))
				before = slices.DeleteFunc(before, func(v version) bool { return !now.Before(v.until.Add(o.Overlap)) })
			}
			next, what, err := s.next(now, o)
			if err != nil {
				t.Fatal(err)
			}
			if what != "" {
				before = append(before, version{s, now})
			}
			s = next
			clients := map[string]struct{}{string(s.data[keyBundle]): {}}
			for _, p := range pods {
				clients[string(p)] = struct{}{}
			}
			for _, v := range before {
				clients[string(v.data[keyBundle])] = struct{}{}
			}
			for _, server := range append(before, version{state: s}) {
				for trusts := range clients {
					if err := verify(server.state, []byte(trusts), now); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}
