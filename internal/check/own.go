package check

import (
	"context"

	clientset "k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/internal/rights"
)

// mayNot says that the person lacks one of the rights in the release's namespace, ""
// if not, or if it cannot be told.
func (t *Target) mayNot(ctx context.Context, all ...rights.Right) string {
	for i := range all {
		all[i].Namespace = t.found.Namespace
	}
	if missing, err := rights.Missing(ctx, t.found.Client(), nil, all); err == nil && len(missing) > 0 {
		return "you may not " + rights.List(missing)
	}
	return ""
}

// ownRights: what the checks read, the person may.
func ownRights(ctx context.Context, t *Target) finding {
	api, err := clientset.NewForConfig(t.Config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	missing, err := rights.Missing(ctx, api, nil, wanted(t.Namespace))
	if err != nil {
		return unread(err, "create selfsubjectaccessreviews, as everybody who is logged in may")
	}
	if len(missing) > 0 {
		return warn("what needs these rights is passed over below: use a kubeconfig of somebody who has them, such as a cluster-admin", "you may not: "+rights.List(missing))
	}
	return fine()
}

// wanted are the rights by which nothing is passed over, of whoever checks the
// release in a namespace; in any, if that is empty. docs/operate.md has them as roles.
func wanted(namespace string) []rights.Right {
	all := []rights.Right{
		{Verb: "list", Resource: "pods"},
		{Verb: "list", Resource: "namespaces"}, {Verb: "get", Resource: "namespaces"},
		{Verb: "list", Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"},
		{Verb: "list", Group: "apps", Resource: "deployments"},                  // of other releases too
		{Verb: "list", Group: "networking.k8s.io", Resource: "networkpolicies"}, // of Falco's namespaces too
		{Verb: "list", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "list", Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
		{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
		{Verb: "create", Resource: "pods"}, // in a dry run
	}
	for _, r := range []rights.Right{
		{Verb: "list", Resource: "configmaps"}, {Verb: "list", Resource: "services"}, {Verb: "list", Resource: "serviceaccounts"}, {Verb: "get", Resource: "serviceaccounts"},
		{Verb: "list", Resource: "secrets"}, {Verb: "get", Resource: "secrets"}, // the authority's
		{Verb: "list", Group: "batch", Resource: "cronjobs"}, {Verb: "list", Group: "batch", Resource: "jobs"},
		{Verb: "list", Group: "discovery.k8s.io", Resource: "endpointslices"},
		{Verb: "list", Resource: "events"}, {Verb: "get", Resource: "pods", Sub: "log"}, // why a pod is not ready
		{Verb: "create", Resource: "pods", Sub: "portforward"},
		{Verb: "create", Resource: "serviceaccounts", Sub: "token"},
	} {
		r.Namespace = namespace
		all = append(all, r)
	}
	return all
}
