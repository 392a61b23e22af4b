package check

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	day  = 24 * time.Hour
	host = "metawire-collector.metawire.svc"
)

// issued is a certificate with what signs by it.
type issued struct {
	*x509.Certificate

	key *ecdsa.PrivateKey
}

func (c issued) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// issue makes a certificate that is good from and to these times from now on; an
// authority without a parent.
func issue(t *testing.T, by *issued, name string, from, to time.Duration, hosts ...string) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: hosts,
		NotBefore: now().Add(from), NotAfter: now().Add(to), IsCA: len(hosts) == 0, BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issued{c, key}
}

func now() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// TestServed: what a client would not take is told with the cause.
func TestServed(t *testing.T) {
	ca := issue(t, nil, "ours", -day, 3650*day)
	other := issue(t, nil, "other", -day, 3650*day)
	between := issue(t, &ca, "between", -day, 3650*day)
	gone := issue(t, nil, "gone", -2*day, -day)
	leaf := issue(t, &ca, "leaf", -day, 7*day, host)
	for name, tc := range map[string]struct {
		chain   []issued
		bundle  []byte
		outcome Outcome
		says    string
	}{
		"good":                   {[]issued{leaf}, ca.pem(), OK, "signed by ours, good until 2026-05-08"},
		"one of two authorities": {[]issued{leaf}, slices.Concat(other.pem(), ca.pem()), OK, "signed by ours"},
		"through another":        {[]issued{issue(t, &between, "leaf", -day, 7*day, host), between}, ca.pem(), OK, "signed by between"},
		"the one between is not served": {
			[]issued{issue(t, &between, "leaf", -day, 7*day, host)}, ca.pem(), Failed, `signed by "between", which is not in the caBundle (ours)`,
		},
		"expired":                {[]issued{issue(t, &ca, "leaf", -9*day, -day, host)}, ca.pem(), Failed, "expired, since 2026-04-30T12:00:00Z"},
		"not valid yet":          {[]issued{issue(t, &ca, "leaf", day, 9*day, host)}, ca.pem(), Failed, "not valid yet, but from 2026-05-02T12:00:00Z"},
		"expires soon":           {[]issued{issue(t, &ca, "leaf", -day, time.Hour, host)}, ca.pem(), Warning, "expires soon, at 2026-05-01T13:00:00Z"},
		"should be renewed":      {[]issued{issue(t, &ca, "leaf", -6*day, day, host)}, ca.pem(), Warning, "expires soon, at 2026-05-02T12:00:00Z"},
		"of a year, three weeks": {[]issued{issue(t, &ca, "leaf", -344*day, 21*day, host)}, ca.pem(), OK, "good until"},
		"of a year, two weeks":   {[]issued{issue(t, &ca, "leaf", -352*day, 13*day, host)}, ca.pem(), Warning, "expires soon"},
		"another authority":      {[]issued{leaf}, other.pem(), Failed, `signed by "ours", which is not in the caBundle (other)`},
		"another name":           {[]issued{issue(t, &ca, "leaf", -day, 7*day, "elsewhere.svc")}, ca.pem(), Failed, "not for " + host + ", but for [elsewhere.svc]"},
		"nothing to verify by":   {[]issued{leaf}, nil, Failed, "the caBundle holds no certificate"},
		"an authority of before": {[]issued{issue(t, &gone, "leaf", -2*day, day, host)}, gone.pem(), Failed, "is not taken"},
	} {
		t.Run(name, func(t *testing.T) {
			var chain []*x509.Certificate
			for _, c := range tc.chain {
				chain = append(chain, c.Certificate)
			}
			outcome, says := verifier{tc.bundle, "the caBundle", host}.judge(chain, now())
			if outcome != tc.outcome || !strings.Contains(says, tc.says) {
				t.Errorf("got %s: %s", outcome, says)
			}
		})
	}
}

// TestJudgeAuthorities: one good authority is enough, and it must last.
func TestJudgeAuthorities(t *testing.T) {
	good := issue(t, nil, "good", -day, 3650*day)
	expired := issue(t, nil, "expired", -9*day, -day)
	tomorrow := issue(t, nil, "tomorrow", day, 3650*day)
	for name, tc := range map[string]struct {
		bundle  []byte
		outcome Outcome
		says    string
	}{
		"good":                {good.pem(), OK, "authority good is good until 2036-04-28"},
		"an old one beside":   {slices.Concat(expired.pem(), good.pem()), OK, "authority expired is expired, since 2026-04-30"},
		"expired":             {expired.pem(), Failed, "authority expired is expired"},
		"not valid yet":       {tomorrow.pem(), Failed, "authority tomorrow is not valid yet, but from 2026-05-02"},
		"ends within a month": {issue(t, nil, "short", -1000*day, 20*day).pem(), Warning, "authority short is good until 2026-05-21"},
		"of a month, new":     {issue(t, nil, "young", -day, 29*day).pem(), OK, "authority young is good until 2026-05-30"},
		"of a month, old":     {issue(t, nil, "old", -22*day, 8*day).pem(), Warning, "authority old is good until 2026-05-09"},
	} {
		t.Run(name, func(t *testing.T) {
			f := judgeAuthorities(tc.bundle, now(), "who renews it")
			if f.outcome != tc.outcome || !strings.Contains(strings.Join(f.details, "\n"), tc.says) {
				t.Errorf("got %+v", f)
			}
			if (f.hint == "") != (f.outcome == OK) {
				t.Errorf("%s, and the hint is %q", f.outcome, f.hint)
			}
		})
	}
}
