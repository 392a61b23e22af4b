package check

import (
	"slices"
	"strconv"
	"strings"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/rights"
)

// What the daemons need for themselves, beside the types that they read: that of
// their configuration. A test holds it to the roles of the chart.

// collectorRights are those of the collectors that stream.
func (c *configuration) collectorRights(ns string) []rights.Right {
	all := []rights.Right{
		{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"},
		{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
	}
	all = append(all, kept(ns, c.Stream.Tickets.Secret.Name)...)
	if c.Stream.TLS.Mode == selfManaged {
		all = append(all, kept(ns, c.Stream.TLS.Secret.Name)...)
	}
	if c.Report.UnwiredPods {
		all = append(all, rights.Right{Verb: "create", Resource: "events"})
	}
	return all
}

// webhookRights are those of the webhooks, which wire to a host and keep a
// MutatingWebhookConfiguration, unless somebody else does and it is empty.
func (c *configuration) webhookRights(ns, host, keeps string) []rights.Right {
	service, _, _ := strings.Cut(host, ".")
	all := rights.Of(rights.Right{Resource: "services", Namespace: ns, Name: service}, "list", "watch")
	if c.Stream.TLS.Mode == selfManaged {
		all = append(all, kept(ns, c.Stream.TLS.Secret.Name)...)
	}
	if keeps != "" {
		own := rights.Right{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations", Name: keeps}
		all = append(all, rights.Of(own, "list", "watch", "patch")...)
	}
	return all
}

// indexes is how many ConfigMaps keep what was acknowledged, at most.
const indexes = 32

// senderRights are those of who sends the inventory.
func senderRights(ns string, s *installation.Sender) []rights.Right {
	lease := rights.Right{Group: "coordination.k8s.io", Resource: "leases", Namespace: ns}
	configMap := rights.Right{Resource: "configmaps", Namespace: ns}
	all := slices.Concat(
		rights.Of(rights.Right{Resource: "namespaces", Name: "kube-system"}, "list"), // whose UID is the cluster's
		rights.Of(lease, "create"), rights.Of(named(lease, s.State.Lease), "get", "update"),
		rights.Of(configMap, "create"), rights.Of(named(configMap, s.State.Report), "get", "patch"),
		rights.Of(rights.Right{Resource: "events", Namespace: ns}, "create"),
	)
	if s.State.Index != "" {
		for i := range indexes {
			all = append(all, rights.Of(named(configMap, s.State.Index+"-"+strconv.Itoa(i)), "get", "patch", "delete")...)
		}
	}
	if key := s.Redaction.Secret.Name; key != "" {
		all = append(all, rights.Of(rights.Right{Resource: "secrets", Namespace: ns, Name: key}, "get", "update")...)
	}
	return all
}

func named(r rights.Right, name string) rights.Right {
	r.Name = name
	return r
}

// kept are the rights to a Secret that daemons fill, and follow.
func kept(ns, secret string) []rights.Right {
	return rights.Of(rights.Right{Resource: "secrets", Namespace: ns, Name: secret}, "list", "watch", "update")
}
