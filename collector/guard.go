package collector

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"

	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector/access"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/report"
	"github.com/metawire/metawire/collector/stream"
	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/subscription"
	"github.com/metawire/metawire/internal/ticket"
	"github.com/metawire/metawire/internal/wiring"
)

// How many requests a second each of our own clients may make: more than the
// reviews and the report let through, which know whom to keep waiting. The
// source has none of these limits and is not slowed by them.
const (
	apiRate  = 300
	apiBurst = 600
)

// apiClient returns a client for what the daemon needs for itself.
func apiClient(api *rest.Config) (kubernetes.Interface, error) {
	own := rest.CopyConfig(api)
	own.QPS, own.Burst = apiRate, apiBurst
	client, err := kubernetes.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", api.Host, err)
	}
	return client, nil
}

// needsRoster reports whether anything asks for pods and nodes by address, or
// for the marks of wired pods.
func (c *Collector) needsRoster() bool {
	s := c.cfg.Stream
	return s.Authorization != config.AuthorizationDisabled || s.Tickets.Secret.Name != "" ||
		s.TLS.Mode == certs.ModeSelfManaged || c.cfg.Report.UnwiredPods
}

// secure sets up the stream's certificate.
func (c *Collector) secure(api *rest.Config, o *stream.Options) error {
	if c.cfg.Stream.TLS.Mode == certs.ModeDisabled {
		return nil
	}
	client, err := apiClient(api)
	if err != nil {
		return err
	}
	c.certs, err = certs.New(c.cfg.Stream.TLS, client, c.log, certs.NewMetrics(c.registry), certs.Options{Trusted: c.trusted})
	if err != nil {
		return fmt.Errorf("stream.tls: %w", err)
	}
	c.parts = append(c.parts, c.certs.Start)
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.certs.GetCertificate}
	return nil
}

// trusted reports whether every pod that was wired trusts the authority. Before
// the first sync nobody knows.
func (c *Collector) trusted(fingerprint string) bool {
	return closed(c.source.Synced()) && c.roster.Trusted(fingerprint)
}

// authorize sets up who may read what, and the services of tickets and of
// subscriptions. A collector that authorizes nobody gives tickets all the same, so
// that pods wired now are good when it does; and who subscribes it tells only to
// whom it always would.
func (c *Collector) authorize(api *rest.Config, o *stream.Options) error {
	s := c.cfg.Stream
	client, err := apiClient(api)
	if err != nil {
		return err
	}
	var keys *access.Keys
	if ref := s.Tickets.Secret; ref.Name != "" {
		keys = access.NewKeys(client, ref.Namespace, ref.Name, c.log)
		c.parts = append(c.parts, keys.Start)
	}
	shared := func(a netip.Addr) bool { _, own, _ := c.roster.NodeOf(a); return own }
	reviews := access.NewReviews(access.API{Interface: client}, shared)
	guard := access.New(c.roster, keys, access.NewPeople(reviews, access.API{Interface: client}), c.log, access.NewMetrics(c.registry), access.Options{
		Audit:                 s.Authorization == config.AuthorizationAudit,
		DistrustNodeAddresses: !s.TrustNodeAddresses,
	})
	c.parts = append(c.parts, guard.Start)
	if s.Authorization != config.AuthorizationDisabled {
		o.Authorizer = authorizer{guard}
	}
	c.guard = guard
	o.Register = func(g grpc.ServiceRegistrar) {
		subscription.RegisterSubscriptionsServer(g, &subscriptions{collector: c})
		if keys != nil {
			ticket.RegisterTicketsServer(g, access.NewTickets(guard, reviews))
		}
	}
	return nil
}

// authorizer is a guard as the stream wants one.
type authorizer struct{ *access.Guard }

// Authorize implements stream.Authorizer.
func (a authorizer) Authorize(ctx context.Context, nodeName string) (stream.Leave, error) {
	g, err := a.Guard.Authorize(ctx, nodeName)
	return stream.Leave{Node: g.Node, Revoked: g.Revoked, By: string(g.By), Pod: g.Pod}, err
}

// reportPods sets up the report of Falco pods that run unwired.
func (c *Collector) reportPods(api *rest.Config) error {
	if !c.cfg.Report.UnwiredPods {
		return nil
	}
	client, err := apiClient(api)
	if err != nil {
		return err
	}
	selector, err := c.cfg.Report.NamespaceSelector.Selector()
	if err != nil {
		return fmt.Errorf("report.namespaceSelector: %w", err)
	}
	o := report.Options{NoTickets: c.cfg.Stream.Tickets.Secret.Name == "", Streams: c.falcos, Namespaces: selector}
	if c.certs != nil {
		o.CA = func() []string { return wiring.Fingerprints(c.certs.Bundle()) }
	}
	r := report.New(c.roster, report.EventsOf(client.CoreV1()), c.log, report.NewMetrics(c.registry), o)
	c.parts = append(c.parts, r.Start)
	return nil
}

// part is something that runs beside the stream until ctx ends.
type part = func(ctx context.Context) error
