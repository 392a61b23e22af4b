package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"time"

	"github.com/metawire/metawire/internal/wiring"
)

// Keys of the Secret. A change of the authority goes through three steps, with
// an overlap after each of the first two, for daemons that see the Secret late:
//  1. next is published beside the authority, which goes on signing;
//  2. when every wired pod trusts it, it becomes the authority and signs; the
//     one before it is published still, as old;
//  3. old is dropped.
const (
	keyBundle   = "ca.crt"  // what is published: PEM of old, authority and next, of those that there are
	keyCert     = "tls.crt" // the authority that signs
	keyKey      = "tls.key"
	keyNextCert = "next.crt" // its successor, in step 1
	keyNextKey  = "next.key"
	keyOldCert  = "old.crt" // its predecessor, in step 2; it signs no more
)

// Annotations of the Secret.
const (
	// rotateAnnotation asks for a new authority, by any new value.
	rotateAnnotation = "metawire.dev/rotate"
	// rotatedAnnotation is the value that the last change was begun for.
	rotatedAnnotation = "metawire.dev/rotated"
	// stepAnnotation is when the change came to the step where it is, RFC 3339.
	stepAnnotation = "metawire.dev/step-since"
)

// state is the Secret's content.
type state struct {
	data        map[string][]byte
	annotations map[string]string
}

// authority is one that can sign.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// signing returns the authority that signs, an error if there is no usable one.
func (s state) signing(now time.Time) (*authority, error) {
	return parse(s.data[keyCert], s.data[keyKey], now)
}

// successor returns the one that is to follow, an error if it cannot be used.
func (s state) successor(now time.Time) (*authority, error) {
	if n := len(wiring.Fingerprints(s.data[keyNextCert])); n != 1 {
		return nil, fmt.Errorf("there are %d certificates instead of one", n)
	}
	return parse(s.data[keyNextCert], s.data[keyNextKey], now)
}

// changing reports whether a change is under way.
func (s state) changing() bool { return len(s.data[keyNextCert]) > 0 || len(s.data[keyOldCert]) > 0 }

// bundle is what is to be published.
func (s state) bundle() []byte {
	var all []byte
	for _, key := range []string{keyOldCert, keyCert, keyNextCert} {
		all = append(all, s.data[key]...)
		if len(all) > 0 && all[len(all)-1] != '\n' { // a person's file: the next one begins a line
			all = append(all, '\n')
		}
	}
	return all
}

// next returns the state that should follow, and what is done by it in words;
// empty words if the state is as it should be. trusted is asked for the
// successor's fingerprint.
func (s state) next(now time.Time, o Options) (state, string, error) {
	current, err := s.signing(now)
	_, nextErr := s.successor(now)
	switch {
	case err != nil && nextErr == nil:
		return s.succeed(now, "the authority cannot be used ("+err.Error()+"): its successor takes over at once")
	case err != nil:
		return s.first(now, o, err)
	case nextErr != nil && len(s.data[keyNextCert]) > 0:
		return s.drop("give up a new authority that cannot be used: "+nextErr.Error(), keyNextCert, keyNextKey)
	case len(s.data[keyOldCert]) > 0 && len(wiring.Fingerprints(s.data[keyOldCert])) == 0:
		return s.drop("drop an old authority that cannot be read", keyOldCert)
	case !bytes.Equal(s.data[keyBundle], s.bundle()):
		return s.publish("publish the authority")
	case s.changing():
		return s.advance(now, o)
	}
	asked := s.annotations[rotateAnnotation]
	old := !now.Before(current.cert.NotAfter.Add(-current.cert.NotAfter.Sub(current.cert.NotBefore) / 3))
	if (asked == "" || asked == s.annotations[rotatedAnnotation]) && !old {
		return s, "", nil
	}
	return s.begin(now, o)
}

// publish lets the bundle be what the authorities are.
func (s state) publish(why string) (state, string, error) {
	out := s.clone()
	out.data[keyBundle] = out.bundle()
	return out, why, nil
}

// drop publishes what is left without the keys.
func (s state) drop(why string, keys ...string) (state, string, error) {
	out := s.clone()
	for _, key := range keys {
		delete(out.data, key)
	}
	if !out.changing() {
		delete(out.annotations, stepAnnotation)
	}
	return out.publish(why)
}

// first makes an authority where there is none that could sign.
func (s state) first(now time.Time, o Options, why error) (state, string, error) {
	cert, key, err := generate(now, o.CADuration)
	if err != nil {
		return s, "", err
	}
	out := s.clone()
	out.data[keyCert], out.data[keyKey] = cert, key
	out.annotations[rotatedAnnotation] = s.annotations[rotateAnnotation]
	what := "make an authority"
	if len(s.data[keyCert]) > 0 {
		what = "replace an authority that cannot be used: " + why.Error()
	}
	return out.drop(what, keyNextCert, keyNextKey, keyOldCert)
}

// begin publishes a successor beside the authority.
func (s state) begin(now time.Time, o Options) (state, string, error) {
	cert, key, err := generate(now, o.CADuration)
	if err != nil {
		return s, "", err
	}
	out := s.clone()
	out.data[keyNextCert], out.data[keyNextKey] = cert, key
	if asked := s.annotations[rotateAnnotation]; asked != "" {
		out.annotations[rotatedAnnotation] = asked
	}
	out.step(now)
	return out.publish("publish a new authority beside the old one, which goes on signing")
}

// advance does the next step of a change when it is time.
func (s state) advance(now time.Time, o Options) (state, string, error) {
	since, err := time.Parse(time.RFC3339, s.annotations[stepAnnotation])
	if err != nil { // lost: as if it were now
		out := s.clone()
		out.step(now)
		return out, "note since when the change is where it is", nil //nolint:nilerr // is mended
	}
	switch {
	case now.Before(since.Add(o.Overlap)):
		return s, "", nil
	case len(s.data[keyNextCert]) == 0:
		return s.drop("drop the old authority: the new one signs everywhere", keyOldCert)
	case o.Trusted == nil || !o.Trusted(wiring.Fingerprints(s.data[keyNextCert])[0]):
		return s, "", nil
	}
	return s.succeed(now, "sign with the new authority: every wired pod trusts it")
}

// succeed lets the successor sign. The old authority stays published: another
// daemon may sign with it until it sees this.
func (s state) succeed(now time.Time, why string) (state, string, error) {
	out := s.clone()
	out.data[keyOldCert] = s.data[keyCert]
	out.data[keyCert], out.data[keyKey] = s.data[keyNextCert], s.data[keyNextKey]
	out.step(now)
	return out.drop(why, keyNextCert, keyNextKey)
}

// step notes that the change has come to another step.
func (s state) step(now time.Time) {
	s.annotations[stepAnnotation] = now.UTC().Format(time.RFC3339Nano)
}

// recall returns the state with the authorities that were held before the Secret
// lost its own, and what is done by it in words; empty words if it has one that
// signs, which counts whoever put it there, or if none is held that could.
func (s state) recall(held state, now time.Time) (state, string) {
	_, lost := s.signing(now)
	if _, err := held.signing(now); err != nil || lost == nil {
		return s, ""
	}
	out := s.clone()
	for _, key := range []string{keyBundle, keyCert, keyKey, keyNextCert, keyNextKey, keyOldCert} {
		restore(out.data, held.data, key)
	}
	for _, key := range []string{rotatedAnnotation, stepAnnotation} {
		restore(out.annotations, held.annotations, key)
	}
	return out, "write back the authority, which the Secret had lost: " + lost.Error()
}

// restore lets the key be in one map what it is in the other.
func restore[V any](to, from map[string]V, key string) {
	delete(to, key)
	if v, ok := from[key]; ok {
		to[key] = v
	}
}

func (s state) clone() state {
	out := state{maps.Clone(s.data), maps.Clone(s.annotations)}
	if out.data == nil {
		out.data = map[string][]byte{}
	}
	if out.annotations == nil {
		out.annotations = map[string]string{}
	}
	return out
}

// parse returns the authority of a certificate and its key, PEM both.
func parse(certPEM, keyPEM []byte, now time.Time) (*authority, error) {
	if len(certPEM) == 0 {
		return nil, errors.New("there is no authority")
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	switch {
	case !ok:
		return nil, fmt.Errorf("the key is a %T", pair.PrivateKey)
	case !pair.Leaf.IsCA:
		return nil, errors.New("the certificate is not an authority's")
	case !now.Before(pair.Leaf.NotAfter):
		return nil, fmt.Errorf("the certificate expired on %s", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &authority{cert: pair.Leaf, key: key, pem: certPEM}, nil
}

// backdated is by how much the clocks of clients may be late.
const backdated = time.Hour

// dates returns those of a certificate that is to be renewed after two thirds
// of the time that it is good for: who renews it goes by its dates, and what it
// is dated back by must not bring that forward, for a short one into the past.
func dates(now time.Time, validFor time.Duration) (notBefore, notAfter time.Time) {
	early := min(backdated, validFor/2)
	return now.Add(-early), now.Add(validFor + early/2)
}

// generate makes an authority: certificate and key, PEM.
func generate(now time.Time, validFor time.Duration) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate the authority's key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, nil, err
	}
	notBefore, notAfter := dates(now, validFor)
	template := &x509.Certificate{
		SerialNumber: serial,
		// Two authorities are told apart by their name too.
		Subject:   pkix.Name{Organization: []string{"metawire"}, CommonName: fmt.Sprintf("metawire-ca-%x", serial.Bytes()[:4])},
		NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the authority's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// sign completes and signs a leaf's template. The leaf is good for less than
// asked for if the authority is.
func (a *authority) sign(template *x509.Certificate, now time.Time, validFor time.Duration) (*x509.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	left := a.cert.NotAfter.Sub(now)
	if left <= 0 {
		return nil, fmt.Errorf("sign a certificate: the authority expired on %s", a.cert.NotAfter.Format(time.DateOnly))
	}
	leaf := *template
	leaf.SerialNumber = serial
	leaf.NotBefore, leaf.NotAfter = dates(now, min(validFor, left))
	if leaf.NotAfter.After(a.cert.NotAfter) {
		leaf.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &leaf, a.cert, template.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return n.SetBit(n, 126, 1), nil // never short
}
