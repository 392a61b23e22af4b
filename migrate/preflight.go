package migrate

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	needs := map[authorizationv1.ResourceAttributes]bool{}
	need := func(group, resource, sub, namespace string, verbs ...string) {
		for _, v := range verbs {
			needs[authorizationv1.ResourceAttributes{Group: group, Resource: resource, Subresource: sub, Namespace: namespace, Verb: v}] = true
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
	if err := objects(slices.Concat(d.had, d.will), "get", "create", "delete"); err != nil {
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
	for _, namespace := range []string{d.old.Namespace, d.plan.New.Namespace} {
		need("", "secrets", "", namespace, "get", "list", "create", "update", "delete")
		need("", "pods", "", namespace, "get", "list")
		need("", "pods", "log", namespace, "get")
		need("coordination.k8s.io", "leases", "", namespace, "get", "create", "update", "delete")
	}
	if d.state.CronJob != nil {
		need("batch", "jobs", "", d.plan.New.Namespace, "get", "list", "create", "delete")
	} else {
		need("", "pods", "portforward", d.plan.New.Namespace, "create")
	}
	missing, err := d.missing(ctx, needs)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		d.problem("you lack these permissions:\n  %s", strings.Join(missing, "\n  "))
	}
	return nil
}

// missing returns which of the permissions the caller has not got, in words.
func (d *drafter) missing(ctx context.Context, needs map[authorizationv1.ResourceAttributes]bool) ([]string, error) {
	var mu sync.Mutex
	var missing []string
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for a := range needs {
		g.Go(func() error {
			review, err := d.api.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &a},
			}, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("ask what you may do: %w", err)
			}
			if review.Status.Allowed {
				return nil
			}
			resource := a.Resource
			if a.Subresource != "" {
				resource += "/" + a.Subresource
			}
			where := " in namespace " + a.Namespace
			if a.Namespace == "" {
				where = ""
			}
			mu.Lock()
			defer mu.Unlock()
			missing = append(missing, a.Verb+" "+resourceText(resource, a.Group)+where)
			return nil
		})
	}
	err := g.Wait()
	slices.Sort(missing)
	return missing, err
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
		d.problem("the endpoint does not take this cluster's inventory: %s", err)
	}
	return nil
}
