package webhook

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"time"
)

// quiet is how long an authority that is not ours stays in the caBundle. Of two
// webhooks that read files one may see new ones 90 s before the other, and each
// needs its own meanwhile.
const quiet = 2 * time.Minute

// authorities decides what the caBundle holds: ours, and those that another
// webhook put there lately.
type authorities struct {
	quiet time.Duration

	ours    []byte
	since   time.Time            // ours are what they are
	foreign map[string]time.Time // DER, and when it was first seen
}

// want returns the caBundle that should be where the bundles are, one for each
// webhook of the configuration.
func (a *authorities) want(now time.Time, ours []byte, there ...[]byte) []byte {
	if !bytes.Equal(a.ours, ours) {
		a.ours, a.since = ours, now
	}
	all := certificates(ours)
	foreign := map[string]time.Time{}
	for _, bundle := range there {
		for der, cert := range certificates(bundle) {
			first, seen := a.foreign[der]
			if !seen {
				first = now
			}
			if all[der] == nil && now.Before(cert.NotAfter) {
				foreign[der] = first
			}
		}
	}
	a.foreign = foreign
	out := bytes.Clone(ours)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	for _, der := range slices.Sorted(maps.Keys(foreign)) {
		if first := foreign[der]; now.Before(first.Add(a.quiet)) || now.Before(a.since.Add(a.quiet)) {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)})...)
		}
	}
	return out
}

// same reports whether two bundles hold the same certificates.
func same(a, b []byte) bool {
	return maps.EqualFunc(certificates(a), certificates(b), func(_, _ *x509.Certificate) bool { return true })
}

// certificates returns those of a bundle by their DER. What is none is left out.
func certificates(bundle []byte) map[string]*x509.Certificate {
	all := map[string]*x509.Certificate{}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all[string(block.Bytes)] = c
		}
	}
	return all
}
