package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/metawire/metawire/internal/installation"
)

// subject is a ServiceAccount, and what it must and may not be able to do.
type subject struct {
	component string // such as "collector", for people
	user      string
	groups    []string
	needs     []right
	// reads are the names of the types that it may list, and watch, by verb.
	reads map[string]map[string]bool
}

// subjects are of one user name each: parts that run as one share it.
type subjects []*subject

// of returns the subject of a ServiceAccount's user name.
func (all *subjects) of(component, user string) *subject {
	for _, s := range *all {
		if s.user == user {
			s.component += " and the " + component
			return s
		}
	}
	namespace, _, _ := strings.Cut(strings.TrimPrefix(user, "system:serviceaccount:"), ":")
	s := &subject{
		component: component, user: user,
		groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
		reads:  map[string]map[string]bool{"list": {}, "watch": {}},
	}
	*all = append(*all, s)
	return s
}

// read adds a type that the subject must be able to read. A plural alone that the
// chart does not know stands for that resource in every group.
func (s *subject) read(t *Target, name string, verbs ...string) {
	gr := schema.ParseGroupResource(name)
	for _, verb := range verbs {
		if s.reads[verb][name] { // for the stream, and for the inventory again
			continue
		}
		s.reads[verb][name] = true
		r := right{verb: verb, group: gr.Group, resource: gr.Resource}
		if gr.Group == "" && !slices.ContainsFunc(t.Types, func(k Type) bool { return k.Group == "" && k.Resource == gr.Resource }) {
			r.group = "*"
		}
		s.needs = append(s.needs, r)
	}
}

// permissions: what the daemons run as may read what is configured, do what they
// do for themselves, and read nothing else.
func permissions(ctx context.Context, t *Target) finding {
	subjects, err := t.subjects(ctx)
	switch {
	case apierrors.IsForbidden(err):
		return unread(err, "list deployments, cronjobs and configmaps in namespace "+t.found.Namespace)
	case err != nil: // a part is not there
		return fail(t.reinstall(), err.Error())
	}
	var details, lacks, more []string
	for _, s := range subjects {
		may, err := review(ctx, t.found.Client(), s, s.needs)
		if err != nil {
			return unread(err, "create subjectaccessreviews")
		}
		if no := missing(s.needs, may); len(no) > 0 {
			lacks = append(lacks, fmt.Sprintf("the %s (%s) may not: %s", s.component, s.user, listed(no)))
		}
		extra, err := t.extra(ctx, s)
		if err != nil {
			return unread(err, "create subjectaccessreviews")
		}
		if len(extra) > 0 {
			more = append(more, fmt.Sprintf("the %s (%s) may also: %s", s.component, s.user, listed(extra)))
		}
		details = append(details, fmt.Sprintf("the %s has the %d rights that it needs", s.component, len(s.needs)))
	}
	switch {
	case len(lacks) > 0:
		return fail("the release's roles were changed, or something took them away: "+t.reinstall(), slices.Concat(lacks, t.unbound(ctx), more)...)
	case len(more) > 0:
		return warn("no part of the release grants that: kubectl get clusterrolebindings,rolebindings -A -o wide shows who does", more...)
	}
	return fine(details...)
}

// subjects are the daemons' accounts.
func (t *Target) subjects(ctx context.Context) (all subjects, err error) {
	ns := t.found.Namespace
	named := func(verbs []string, group, resource, name string) (all []right) {
		for _, v := range verbs {
			all = append(all, right{verb: v, group: group, resource: resource, namespace: ns, name: name})
		}
		return all
	}
	kept := []string{"list", "watch", "update"}
	var collector *subject
	if t.found.Host != "" {
		user, err := t.found.AccountOf(ctx, installation.Collector)
		if err != nil {
			return nil, err
		}
		collector = all.of(installation.Collector, user)
	}
	if t.config.Stream.Enabled && collector != nil {
		for _, k := range t.Types {
			if k.Streamed {
				collector.read(t, schema.GroupResource{Group: k.Group, Resource: k.Resource}.String(), "list", "watch")
			}
		}
		collector.needs = append(collector.needs, right{verb: "create", group: "authentication.k8s.io", resource: "tokenreviews"})
		collector.needs = append(collector.needs, right{verb: "create", group: "authorization.k8s.io", resource: "subjectaccessreviews"})
		collector.needs = append(collector.needs, named(kept, "", "secrets", t.config.Stream.Tickets.Secret.Name)...)
		if t.config.Stream.TLS.Mode == selfManaged {
			collector.needs = append(collector.needs, named(kept, "", "secrets", t.config.Stream.TLS.Secret.Name)...)
		}
	}
	if wires(t) == "" {
		collector.needs = append(collector.needs, right{verb: "create", resource: "events"})
		// Without a Deployment the check of the pods says so.
		if user, err := t.found.AccountOf(ctx, installation.Webhook); err == nil {
			webhook, own := all.of(installation.Webhook, user), []string{"list", "watch", "patch"}
			if c, err := t.webhookConfiguration(ctx); err == nil && c.Configuration != "" {
				for _, v := range own {
					webhook.needs = append(webhook.needs, right{verb: v, group: "admissionregistration.k8s.io", resource: "mutatingwebhookconfigurations", name: c.Configuration})
				}
			}
			if t.config.Stream.TLS.Mode == selfManaged {
				webhook.needs = append(webhook.needs, named(kept, "", "secrets", t.config.Stream.TLS.Secret.Name)...)
			}
			service, _, _ := strings.Cut(t.found.Host, ".")
			webhook.needs = append(webhook.needs, named([]string{"list", "watch"}, "", "services", service)...)
		}
	}
	return all, t.withSender(ctx, &all, collector)
}

// withSender adds what whoever sends the inventory needs.
func (t *Target) withSender(ctx context.Context, all *subjects, collector *subject) error {
	sender, err := t.found.Sender(ctx)
	if errors.Is(err, installation.ErrNoInventory) {
		return nil
	}
	if err != nil {
		return err
	}
	who := collector
	if sender.CronJob != nil {
		user, err := t.found.Account(ctx, sender)
		if err != nil {
			return err
		}
		who = all.of(installation.Inventory, user)
	}
	for _, name := range sender.Resources {
		who.read(t, name, "list")
	}
	if sender.CustomResources {
		for _, group := range sender.CustomResourceGroups {
			who.needs = append(who.needs, right{verb: "list", group: group, resource: "*"})
		}
	}
	for _, verb := range []string{"get", "update"} {
		who.needs = append(who.needs, right{verb: verb, group: "coordination.k8s.io", resource: "leases", namespace: t.found.Namespace, name: sender.State.Lease})
	}
	for _, verb := range []string{"get", "patch"} {
		who.needs = append(who.needs, right{verb: verb, resource: "configmaps", namespace: t.found.Namespace, name: sender.State.Report})
	}
	return nil
}

// extra asks for what a subject must not be able to do: to read types in all
// namespaces that are not configured, and to change workloads.
func (t *Target) extra(ctx context.Context, s *subject) ([]right, error) {
	unwanted := []right{
		{verb: "get", resource: "secrets"}, {verb: "create", resource: "pods"}, {verb: "delete", resource: "pods"}, {verb: "create", resource: "pods", sub: "exec"},
		{verb: "patch", group: "apps", resource: "daemonsets"}, {verb: "update", group: "rbac.authorization.k8s.io", resource: "clusterroles"},
	}
	for _, k := range t.Types {
		name := schema.GroupResource{Group: k.Group, Resource: k.Resource}.String()
		for _, verb := range []string{"list", "watch"} {
			if !s.reads[verb][name] {
				unwanted = append(unwanted, right{verb: verb, group: k.Group, resource: k.Resource})
			}
		}
	}
	may, err := review(ctx, t.found.Client(), s, unwanted)
	if err != nil {
		return nil, err
	}
	var all []right
	for i, r := range unwanted {
		if may[i] {
			all = append(all, r)
		}
	}
	return all, nil
}

// unbound says which of the release's ClusterRoles nobody is given, and which
// bindings give one that is gone. What it cannot read it does not tell of.
func (t *Target) unbound(ctx context.Context) (all []string) {
	rbac, own := t.found.Client().RbacV1(), t.found.All()
	roles, err := rbac.ClusterRoles().List(ctx, own)
	if err != nil {
		return nil
	}
	bindings, err := rbac.ClusterRoleBindings().List(ctx, own)
	if err != nil {
		return nil
	}
	is, bound := map[string]bool{}, map[string]bool{}
	for _, r := range roles.Items {
		is[r.Name] = true
	}
	for _, b := range bindings.Items {
		bound[b.RoleRef.Name] = true
		if !is[b.RoleRef.Name] {
			all = append(all, fmt.Sprintf("ClusterRoleBinding %s is of ClusterRole %s, which is not there", b.Name, b.RoleRef.Name))
		}
	}
	for _, r := range roles.Items {
		if !bound[r.Name] {
			all = append(all, fmt.Sprintf("no ClusterRoleBinding of the release is of ClusterRole %s", r.Name))
		}
	}
	return all
}
