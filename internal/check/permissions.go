package check

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/rights"
)

// subject is a ServiceAccount, and what it must and may not be able to do.
type subject struct {
	component string // such as "collector", for people
	*rights.Account
	needs []rights.Right
	// reads are the names of the types that it may list, and watch, by verb.
	reads map[string]map[string]bool
}

// subjects are of one user name each: parts that run as one share it.
type subjects []*subject

// of returns the subject of a ServiceAccount's user name.
func (all *subjects) of(component, user string) *subject {
	for _, s := range *all {
		if s.User == user {
			s.component += " and the " + component
			return s
		}
	}
	s := &subject{component: component, Account: rights.ServiceAccount(user), reads: map[string]map[string]bool{"list": {}, "watch": {}}}
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
		r := rights.Right{Verb: verb, Group: gr.Group, Resource: gr.Resource}
		if gr.Group == "" && !slices.ContainsFunc(t.Types, func(k Type) bool { return k.Group == "" && k.Resource == gr.Resource }) {
			r.Group = "*"
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
	case errors.Is(err, installation.ErrNoPart):
		return skip(err.Error())
	case err != nil:
		return unread(err, "read the release's deployments, cronjobs and configmaps in namespace "+t.found.Namespace)
	}
	var details, lacks, more []string
	for _, s := range subjects {
		missing, err := rights.Missing(ctx, t.found.Client(), s.Account, s.needs)
		if err != nil {
			return unread(err, "create subjectaccessreviews")
		}
		if len(missing) > 0 {
			lacks = append(lacks, fmt.Sprintf("the %s (%s) may not: %s", s.component, s.User, rights.List(missing)))
		}
		extra, err := t.extra(ctx, s)
		if err != nil {
			return unread(err, "create subjectaccessreviews")
		}
		if len(extra) > 0 {
			more = append(more, fmt.Sprintf("the %s (%s) may also: %s", s.component, s.User, rights.List(extra)))
		}
		details = append(details, fmt.Sprintf("the %s has the %d rights that it needs", s.component, len(s.needs)))
	}
	switch {
	case len(lacks) > 0 && isOther(t.Version, t.found.Version):
		return warn("use the command of the release's version: another one may need other rights", slices.Concat([]string{fmt.Sprintf("this command is %s, the release %s", t.Version, t.found.Version)}, lacks, more)...)
	case len(lacks) > 0:
		return fail("the release's roles were changed, or something took them away: "+t.reinstall(), slices.Concat(lacks, t.unbound(ctx), more)...)
	case len(more) > 0:
		return warn("no part of the release grants that: kubectl get clusterrolebindings,rolebindings -A -o wide shows who does", more...)
	}
	return fine(details...)
}

// subjects are the daemons' accounts.
func (t *Target) subjects(ctx context.Context) (all subjects, err error) {
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
		collector.needs = append(collector.needs, t.config.collectorRights(t.found.Namespace)...)
	}
	if wires(t) == "" {
		// Without a Deployment the check of the pods says so.
		if user, err := t.found.AccountOf(ctx, installation.Webhook); err == nil {
			// Without a configuration it needs no right to one; its pods say so.
			c, _ := t.webhookConfiguration(ctx)
			webhook := all.of(installation.Webhook, user)
			webhook.needs = append(webhook.needs, t.config.webhookRights(t.found.Namespace, t.found.Host, c.Configuration)...)
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
			who.needs = append(who.needs, rights.Right{Verb: "list", Group: group, Resource: "*"})
		}
	}
	who.needs = append(who.needs, senderRights(t.found.Namespace, sender)...)
	return nil
}

// extra asks for what a subject must not be able to do: to read types in all
// namespaces that are not configured, and to change workloads.
func (t *Target) extra(ctx context.Context, s *subject) ([]rights.Right, error) {
	unwanted := rights.Unwanted()
	for _, k := range t.Types {
		name := schema.GroupResource{Group: k.Group, Resource: k.Resource}.String()
		for _, verb := range []string{"list", "watch"} {
			if !s.reads[verb][name] {
				unwanted = append(unwanted, rights.Right{Verb: verb, Group: k.Group, Resource: k.Resource})
			}
		}
	}
	return rights.Held(ctx, t.found.Client(), s.Account, unwanted)
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
