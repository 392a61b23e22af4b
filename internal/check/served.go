package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/rights"
)

func collectorCertificate(ctx context.Context, t *Target) finding {
	bundle, where, err := t.bundle(ctx)
	if err != nil {
		return skip("no authority is known to verify it with: see the check of the authorities")
	}
	return t.served(ctx, installation.Collector, "grpc", []verifier{{bundle, where, t.found.Host}})
}

func webhookCertificate(ctx context.Context, t *Target) finding {
	hooks, err := t.found.Webhooks(ctx)
	if err != nil {
		return unread(err, "list mutatingwebhookconfigurations")
	}
	var by []verifier
	for _, h := range hooks {
		if s := h.ClientConfig.Service; s != nil {
			by = append(by, verifier{h.ClientConfig.CABundle, "the caBundle of webhook " + h.Name, s.Name + "." + s.Namespace + ".svc"})
		}
	}
	if len(by) == 0 {
		return skip("no MutatingWebhookConfiguration says what the API server verifies with")
	}
	return t.served(ctx, installation.Webhook, "https", by)
}

// verifier is what somebody verifies a server with.
type verifier struct {
	bundle []byte
	where  string // the bundle is
	name   string // of the server
}

// served looks at the certificate that each ready pod of a part really serves.
func (t *Target) served(ctx context.Context, component, port string, by []verifier) finding {
	pods, err := t.found.Pods(ctx, component)
	if err != nil {
		return unread(err, "list pods in namespace "+t.found.Namespace)
	}
	s, err := t.source(ctx)
	if err != nil {
		return unread(err, "list deployments in namespace "+t.found.Namespace)
	}
	if why := t.mayNot(ctx, rights.Right{Verb: "create", Resource: "pods", Sub: "portforward"}); why != "" {
		return skip(why)
	}
	chains := t.chains(ctx, pods, port, by[0].name)
	if c := slices.IndexFunc(chains, func(c chain) bool { return errors.Is(c.err, errUnreached) }); c >= 0 {
		return warn("whether the certificate is good cannot be told from here. The API server, and what stands before it, must let a port-forward through: kubectl -n "+t.found.Namespace+" port-forward pod/"+chains[c].pod+" 8081",
			fmt.Sprintf("pod %s: %v", chains[c].pod, chains[c].err))
	}
	var details, bad []string
	outcome := OK
	for _, c := range chains {
		if c.err != nil {
			bad = append(bad, fmt.Sprintf("pod %s: %v", c.pod, c.err))
			continue
		}
		for _, v := range by {
			verdict, text := v.judge(c.certificates, t.Now)
			text = fmt.Sprintf("pod %s: %s", c.pod, text)
			if verdict == Failed {
				bad = append(bad, text)
				continue
			}
			details = append(details, text)
			if verdict == Warning {
				outcome = Warning
			}
		}
	}
	switch {
	case len(bad) > 0:
		return fail(s.renews, append(bad, details...)...)
	case len(chains) == 0:
		return skip("no pod serves one: see the check of the pods")
	case outcome == Warning:
		return warn(s.renews, details...)
	}
	return fine(details...)
}

// chain is what a pod serves.
type chain struct {
	pod          string
	certificates []*x509.Certificate
	err          error
}

// chains asks all pods that run, at once. That one does not answer that is not ready
// is told by another check.
func (t *Target) chains(ctx context.Context, pods []corev1.Pod, port, name string) []chain {
	all := make([]chain, len(pods))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase != corev1.PodRunning {
			continue
		}
		g.Go(func() error {
			certificates, err := t.chain(ctx, p, port, name)
			if err == nil || installation.Ready(p) {
				all[i] = chain{p.Name, certificates, err}
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
	return slices.DeleteFunc(all, func(c chain) bool { return c.pod == "" })
}

// atOnce bounds the pods that are asked at the same time.
const atOnce = 8

// errUnreached says that a pod could not be asked, which tells nothing of it.
var errUnreached = errors.New("it could not be reached through the API server")

// chain returns what a pod serves, unverified.
func (t *Target) chain(ctx context.Context, p *corev1.Pod, port, name string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	plain, err := t.found.DialPort(ctx, p, port)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreached, err)
	}
	defer plain.Close()
	// Verified below, by whom and with what is said then.
	conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"h2", "http/1.1"}})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("no certificate is served on port %s: %w", port, err)
	}
	return conn.ConnectionState().PeerCertificates, nil
}

// soonLeaf is how long before its end a certificate is reported, or in the last quarter
// of its life if that is shorter, as the alert MetawireCertificateNotRenewed does:
// daemons and cert-manager renew when a third is left.
const soonLeaf = 14 * 24 * time.Hour

// judge verifies a chain as a client with that bundle does, and says in words why
// it would not take it.
func (v verifier) judge(chain []*x509.Certificate, now time.Time) (Outcome, string) {
	leaf := chain[0]
	if why := dated(leaf, now); why != "" {
		return Failed, "the certificate that is served is " + why
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(v.bundle) {
		return Failed, v.where + " holds no certificate to verify it with"
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, DNSName: v.name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	switch unknown, name := (x509.UnknownAuthorityError{}), (x509.HostnameError{}); {
	case errors.As(err, &unknown):
		return Failed, fmt.Sprintf("the certificate that is served was signed by %q, which is not in %s (%s)", leaf.Issuer.CommonName, v.where, names(v.bundle))
	case errors.As(err, &name):
		return Failed, fmt.Sprintf("the certificate that is served is not for %s, but for %v", v.name, leaf.DNSNames)
	case err != nil:
		return Failed, fmt.Sprintf("the certificate that is served is not taken: %v", err)
	case now.Add(min(soonLeaf, leaf.NotAfter.Sub(leaf.NotBefore)/4)).After(leaf.NotAfter):
		return Warning, "the certificate that is served expires soon, at " + leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	return OK, fmt.Sprintf("signed by %s, good until %s", leaf.Issuer.CommonName, leaf.NotAfter.UTC().Format(time.RFC3339))
}
