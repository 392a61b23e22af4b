package migrate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/internal/rights"
)

// preflight finds out whether what is planned can be done.
func (d *drafter) preflight(ctx context.Context) error {
	if err := d.allowed(ctx); err != nil {
		return err
	}
	return d.answers(ctx)
}

// allowed asks whether the caller may do all that is ahead, and its undoing.
func (d *drafter) allowed(ctx context.Context) error {
	needs := map[rights.Right]bool{}
	need := func(group, resource, sub, namespace string, verbs ...string) {
		for _, r := range rights.Of(rights.Right{Group: group, Resource: resource, Sub: sub, Namespace: namespace}, verbs...) {
			needs[r] = true
		}
	}
	objects := func(all []*unstructured.Unstructured, verbs ...string) error {
		for _, u := range all {
			r, err := d.objects.resource(u)
			if meta.IsNoMatchError(err) {
				continue // reported where it is tried
			}
			if err != nil {
				return err
			}
			need(r.Group, r.Resource, "", u.GetNamespace(), verbs...)
		}
		return nil
	}
	if err := objects(slices.Concat(d.had, d.will, d.tests), "get", "create", "delete"); err != nil {
		return err
	}
	if err := objects(d.hooks, "get", "delete"); err != nil {
		return err
	}
	for _, o := range []*Object{d.state.Service, d.state.Deployment, d.state.CronJob} {
		if u := d.find(o); u != nil {
			if err := objects([]*unstructured.Unstructured{u}, "update"); err != nil {
				return err
			}
		}
	}
	if d.fresh {
		need("", "namespaces", "", "", "create")
	}
	need("", "namespaces", "", "", "get")
	old, made := d.old.Namespace, d.plan.New.Namespace
	for _, namespace := range []string{old, made} { // records, state, credentials
		need("", "secrets", "", namespace, "get", "list", "create", "update", "delete")
	}
	need("coordination.k8s.io", "leases", "", old, "get", "create", "update", "delete")
	need("", "pods", "", made, "get", "list", "watch") // helm test waits for its own
	need("", "pods", "log", made, "get")
	if d.state.CronJob != nil {
		need("batch", "jobs", "", d.state.CronJob.Namespace, "list")
		need("batch", "jobs", "", made, "get", "list", "create", "delete")
		need("batch", "cronjobs", "", made, "get", "list", "update")
		need("", "configmaps", "", made, "get", "list")
	}
	if d.state.Deployment != nil {
		from := d.state.Deployment.Namespace
		need("", "pods", "", from, "list")
		need("", "pods", "portforward", from, "get", "create") // who is served is a metric; one verb for each protocol
		need("", "pods", "portforward", made, "get", "create")
		need("apps", "replicasets", "", made, "list") // helm waits for Deployments so
		need("", "services", "", made, "list")
	}
	if d.state.Service != nil {
		for _, namespace := range []string{d.state.Service.Namespace, made} {
			need("discovery.k8s.io", "endpointslices", "", namespace, "list")
			need("", "pods", "", namespace, "list")
		}
	}
	if d.state.Relay != nil {
		need("", "services", "", made, "get", "create", "delete")
	}
	missing, err := rights.Missing(ctx, d.api, nil, slices.Collect(maps.Keys(needs)))
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		lines := make([]string, 0, len(missing))
		for _, r := range missing {
			lines = append(lines, r.String())
		}
		slices.Sort(lines)
		d.problem("you lack these permissions:\n  %s", strings.Join(lines, "\n  "))
	}
	return d.undoable(ctx)
}

// undoable tries whether the old release's roles could be made again, under another
// name: the API server lets nobody grant what he has not got.
func (d *drafter) undoable(ctx context.Context) error {
	for _, u := range d.had {
		if u.GroupVersionKind().Group != rbacv1.GroupName {
			continue
		}
		again := portable(u)
		again.SetName(u.GetName() + "-again")
		err := d.objects.create(ctx, again, true)
		switch {
		case apierrors.IsForbidden(err):
			d.problem("you could not bring the old release back: %s", err)
		case err != nil && !apierrors.IsAlreadyExists(err):
			return err
		}
	}
	return nil
}

// clusterIDs are what the service takes (contract runs).
func clusterIDs() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-_]+$`) }

// answers asks the endpoint of an inventory whether it takes this cluster.
func (d *drafter) answers(ctx context.Context) error {
	if d.endpoint == nil {
		return nil
	}
	e := d.endpoint
	e.ClusterID, _, _ = unstructured.NestedString(d.state.Values, "clusterID")
	e.URL, _, _ = unstructured.NestedString(d.state.Values, "inventory", "endpoint")
	e.LoginURL, _, _ = unstructured.NestedString(d.state.Values, "inventory", "loginEndpoint")
	e.Override, _, _ = unstructured.NestedBool(d.state.Values, "inventory", "overrideUniqueClusterId")
	if !clusterIDs().MatchString(e.ClusterID) {
		d.problem("clusterId is %q: a cluster id has lower-case letters, digits, - and _, and the service knows no other; give the right one: --set clusterID=ID", e.ClusterID)
		return nil
	}
	system, err := d.api.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the identity of the cluster: %w", err)
	}
	e.ClusterUID = string(system.UID)
	if d.options.Endpoint == nil || len(d.plan.Problems) > 0 {
		return nil // what the endpoint is asked with is not certain
	}
	if err := d.options.Endpoint(ctx, *e); err != nil {
		if ctx.Err() != nil {
			return err
		}
		d.problem("%s", refusal(err))
	}
	return nil
}

// refusal tells an endpoint that says no from one that is not reached, from here.
func refusal(err error) string {
	if _, ok := errors.AsType[net.Error](err); ok {
		return fmt.Sprintf("the endpoint cannot be reached from here, so whether it takes this cluster's inventory is not known: %s. Run metawire migrate where it can be reached", err)
	}
	return fmt.Sprintf("the endpoint does not take this cluster's inventory: %s", err)
}
