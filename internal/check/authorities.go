package check

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/wiring"
)

// soon is how long before its end an authority is reported, or in the last third of
// its life if that is shorter.
const soon = 30 * 24 * time.Hour

// source is where the certificates come from.
type source struct {
	name   string // as the chart's value tls.source
	secret string // that of the authority's certificate
	renews string // who does
}

// source finds out which it is.
func (t *Target) source(ctx context.Context) (source, error) {
	if tls := t.config.Stream.TLS; tls.Mode == selfManaged {
		return source{selfManaged, tls.Secret.Name, "the daemons renew it: " + t.logs(installation.Collector)}, nil
	}
	list, err := t.found.Client().AppsV1().Deployments(t.found.Namespace).List(ctx, t.found.Only(installation.Collector))
	if err != nil {
		return source{}, err
	}
	s := source{name: "provided"}
	for _, d := range list.Items {
		for _, v := range d.Spec.Template.Spec.Volumes {
			if v.Name == "tls" && v.Secret != nil {
				s.secret = v.Secret.SecretName
			}
		}
	}
	s.renews = fmt.Sprintf("you provide it: write a good one to Secret %s, and the daemons take it within a minute", s.secret)
	secret, err := t.found.Client().CoreV1().Secrets(t.found.Namespace).Get(ctx, s.secret, metav1.GetOptions{})
	// cert-manager writes of which Certificate it is; where the Secret may not be
	// read: without the webhook's file knowing a configuration, cert-manager keeps that.
	c, err2 := t.webhookConfiguration(ctx)
	if err == nil && secret.Annotations["cert-manager.io/certificate-name"] != "" || err2 == nil && c.Configuration == "" {
		s.name, s.renews = "certManager", "cert-manager renews it: kubectl -n "+t.found.Namespace+" describe certificates; do its pods run?"
	}
	return s, nil
}

// bundle returns the authorities by which Falco verifies the stream, and where
// they were found: in the Secret, or, where that may not be read, in what the API
// server verifies the webhook with.
func (t *Target) bundle(ctx context.Context) ([]byte, string, error) {
	s, err := t.source(ctx)
	if err != nil {
		return nil, "", err
	}
	secret, err := t.found.Client().CoreV1().Secrets(t.found.Namespace).Get(ctx, s.secret, metav1.GetOptions{})
	if err == nil && len(secret.Data[corev1.ServiceAccountRootCAKey]) > 0 {
		return secret.Data[corev1.ServiceAccountRootCAKey], "Secret " + s.secret, nil
	}
	b, err := t.found.Authorities(ctx)
	return b, "the caBundle", err
}

// authorities checks what the stream and the webhook are verified with.
func authorities(ctx context.Context, t *Target) finding {
	s, err := t.source(ctx)
	if err != nil {
		return unread(err, "list deployments in namespace "+t.found.Namespace)
	}
	details := []string{fmt.Sprintf("source: %s, in Secret %s", s.name, s.secret)}
	secret, err := t.found.Client().CoreV1().Secrets(t.found.Namespace).Get(ctx, s.secret, metav1.GetOptions{})
	var kept []byte
	switch {
	case apierrors.IsForbidden(err):
		details = append(details, "you may not read the Secret: what is in it was not looked at")
	case apierrors.IsNotFound(err) && s.name == selfManaged:
		return fail("the daemons go on with what they hold and lose it when they restart; they fill the Secret when it is back: "+t.reinstall(), append(details, fmt.Sprintf("Secret %s is not there", s.secret))...)
	case apierrors.IsNotFound(err):
		return fail(s.renews, append(details, fmt.Sprintf("Secret %s is not there", s.secret))...)
	case err != nil:
		return unread(err, "get secrets in namespace "+t.found.Namespace)
	default:
		kept = secret.Data[corev1.ServiceAccountRootCAKey]
		if len(wiring.Fingerprints(kept)) == 0 {
			return fail(s.renews, append(details, fmt.Sprintf("Secret %s holds no certificate in ca.crt", s.secret))...)
		}
		if f := judgeAuthorities(kept, t.Now, s.renews); f.outcome != OK {
			f.details = append(details, f.details...)
			return f
		}
	}
	if wires(t) != "" {
		return fine(append(details, described(kept)...)...)
	}
	return t.caBundles(ctx, s, kept, details)
}

// caBundles checks what the API server verifies the webhook with: without it,
// pods are admitted unwired and nobody is told.
func (t *Target) caBundles(ctx context.Context, s source, kept []byte, details []string) finding {
	bundles, err := t.found.CABundles(ctx)
	if err != nil {
		return unread(err, "list mutatingwebhookconfigurations")
	}
	keeper := "the webhooks keep the caBundle: are they ready? " + t.logs(installation.Webhook)
	if s.name == "certManager" {
		keeper = "cert-manager's cainjector keeps the caBundle: do its pods run?"
	}
	for _, b := range bundles { // without a webhook there is none; the check of the registration says so
		switch in := wiring.Fingerprints(b); {
		case len(in) == 0:
			return fail(keeper, append(details, "the caBundle of the MutatingWebhookConfiguration holds no certificate, so the API server calls no webhook and Falco pods are admitted unwired")...)
		case len(kept) > 0 && !slices.ContainsFunc(wiring.Fingerprints(kept), func(f string) bool { return slices.Contains(in, f) }):
			return fail(keeper, append(details, fmt.Sprintf("the caBundle of the MutatingWebhookConfiguration (%s) holds none of the authorities of Secret %s (%s), so the API server takes no webhook for ours and Falco pods are admitted unwired",
				names(b), s.secret, names(kept)))...)
		}
		if f := judgeAuthorities(b, t.Now, keeper); f.outcome != OK {
			f.details = append(details, f.details...)
			return f
		}
		if len(kept) == 0 {
			kept = b
		}
	}
	return fine(append(details, described(kept)...)...)
}

// judgeAuthorities judges a bundle: one certificate of it must be good.
func judgeAuthorities(bundle []byte, now time.Time, renews string) finding {
	var details []string
	good, lasts := 0, false
	for _, c := range parse(bundle) {
		lasts = lasts || now.Add(min(soon, c.NotAfter.Sub(c.NotBefore)/3)).Before(c.NotAfter)
		why := dated(c, now)
		if why == "" {
			good++
			why = "good until " + c.NotAfter.Format(time.DateOnly)
		}
		details = append(details, fmt.Sprintf("authority %s is %s", c.Subject.CommonName, why))
	}
	switch {
	case good == 0:
		return fail(renews, details...)
	case !lasts:
		return warn(renews, details...)
	}
	return fine(details...)
}

// dated says why a certificate is not good now by its dates, "" if it is.
func dated(c *x509.Certificate, now time.Time) string {
	switch {
	case now.After(c.NotAfter):
		return "expired, since " + c.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(c.NotBefore):
		return "not valid yet, but from " + c.NotBefore.UTC().Format(time.RFC3339) + " on (or this machine's clock is wrong)"
	}
	return ""
}

// parse returns the certificates of a PEM bundle that can be parsed.
func parse(bundle []byte) (all []*x509.Certificate) {
	for block, rest := pem.Decode(bytes.TrimSpace(bundle)); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
	return all
}

func names(bundle []byte) string {
	all := ""
	for _, c := range parse(bundle) {
		if all != "" {
			all += ", "
		}
		all += c.Subject.CommonName
	}
	return all
}

func described(bundle []byte) (all []string) {
	for _, c := range parse(bundle) {
		all = append(all, fmt.Sprintf("%s, good until %s", c.Subject.CommonName, c.NotAfter.Format(time.DateOnly)))
	}
	return all
}
