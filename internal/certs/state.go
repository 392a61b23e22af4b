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

// Keys of the Secret.
const (
	keyBundle   = "ca.crt"  // what is published: PEM of one authority or two
	keyCert     = "tls.crt" // the authority that signs
	keyKey      = "tls.key"
	keyNextCert = "next.crt" // its successor while a change is under way
	keyNextKey  = "next.key"
)

// Annotations of the Secret.
const (
	// rotateAnnotation asks for a new authority, by any new value.
	rotateAnnotation = "metawire.dev/rotate"
	// rotatedAnnotation is the value that the last change was begun for.
	rotatedAnnotation = "metawire.dev/rotated"
	// publishedAnnotation is when the successor was published, RFC 3339.
	publishedAnnotation = "metawire.dev/next-published"
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

// changing reports whether a change is under way.
func (s state) changing() bool { return len(s.data[keyNextCert]) > 0 }

// next returns the state that should follow, and what is done by it in words;
// empty words if the state is as it should be. trusted is asked for the
// successor's fingerprint.
func (s state) next(now time.Time, o Options) (state, string, error) {
	current, err := s.signing(now)
	switch {
	case err != nil && len(s.data[keyCert]) > 0 && s.changing():
		return s.complete("the authority cannot be used (" + err.Error() + "): its successor takes over at once")
	case err != nil:
		return s.first(now, o, err)
	case s.changing():
		return s.finish(now, o)
	case !bytes.Equal(s.data[keyBundle], current.pem):
		out := s.clone()
		out.data[keyBundle] = current.pem
		return out, "publish the authority", nil
	}
	asked := s.annotations[rotateAnnotation]
	old := !now.Before(current.cert.NotAfter.Add(-current.cert.NotAfter.Sub(current.cert.NotBefore) / 3))
	if asked == s.annotations[rotatedAnnotation] && !old {
		return s, "", nil
	}
	return s.begin(now, o, current)
}

// first makes an authority where there is none that could sign.
func (s state) first(now time.Time, o Options, why error) (state, string, error) {
	cert, key, err := generate(now, o.CADuration)
	if err != nil {
		return s, "", err
	}
	out := s.clone()
	out.data[keyCert], out.data[keyKey], out.data[keyBundle] = cert, key, cert
	out.annotations[rotatedAnnotation] = s.annotations[rotateAnnotation]
	if len(s.data[keyCert]) == 0 {
		return out, "make an authority", nil
	}
	return out, "replace an authority that cannot be used: " + why.Error(), nil
}

// begin publishes a successor beside the authority.
func (s state) begin(now time.Time, o Options, current *authority) (state, string, error) {
	cert, key, err := generate(now, o.CADuration)
	if err != nil {
		return s, "", err
	}
	out := s.clone()
	out.data[keyNextCert], out.data[keyNextKey] = cert, key
	out.data[keyBundle] = append(bytes.Clone(current.pem), cert...)
	out.annotations[rotatedAnnotation] = s.annotations[rotateAnnotation]
	out.annotations[publishedAnnotation] = now.UTC().Format(time.RFC3339)
	return out, "publish a new authority beside the old one, which goes on signing", nil
}

// finish lets the successor sign once everybody trusts it.
func (s state) finish(now time.Time, o Options) (state, string, error) {
	published, err := time.Parse(time.RFC3339, s.annotations[publishedAnnotation])
	if err != nil { // lost: as if it were published now
		out := s.clone()
		out.annotations[publishedAnnotation] = now.UTC().Format(time.RFC3339)
		return out, "note when the new authority was published", nil //nolint:nilerr // is mended
	}
	fingerprints := wiring.Fingerprints(s.data[keyNextCert])
	if o.Trusted == nil || now.Before(published.Add(o.Overlap)) || len(fingerprints) != 1 || !o.Trusted(fingerprints[0]) {
		return s, "", nil
	}
	if _, err := parse(s.data[keyNextCert], s.data[keyNextKey], now); err != nil {
		out := s.clone()
		out.dropNext()
		return out, "give up a new authority that cannot be used: " + err.Error(), nil //nolint:nilerr // is told in words
	}
	return s.complete("sign with the new authority: every wired pod trusts it")
}

// complete makes the successor the one authority.
func (s state) complete(why string) (state, string, error) {
	out := s.clone()
	out.data[keyCert], out.data[keyKey], out.data[keyBundle] = s.data[keyNextCert], s.data[keyNextKey], s.data[keyNextCert]
	out.dropNext()
	return out, why, nil
}

func (s state) dropNext() {
	delete(s.data, keyNextCert)
	delete(s.data, keyNextKey)
	delete(s.annotations, publishedAnnotation)
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
	template := &x509.Certificate{
		SerialNumber: serial,
		// Two authorities are told apart by their name too.
		Subject:   pkix.Name{Organization: []string{"metawire"}, CommonName: fmt.Sprintf("metawire-ca-%x", serial.Bytes()[:4])},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(validFor),
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

// sign completes and signs a leaf's template.
func (a *authority) sign(template *x509.Certificate, now time.Time, validFor time.Duration) (*x509.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	leaf := *template
	leaf.SerialNumber = serial
	leaf.NotBefore, leaf.NotAfter = now.Add(-backdated), now.Add(validFor)
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
