package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/internal/rights"
)

// preChecks is the table of those before an install.
func preChecks() []check {
	const install = "Before an install"
	return []check{
		{apiServerID, kubernetes, "the API server answers, and is of a version that is supported", nil, apiServer},
		{"install-rights", install, "you may create what the chart has", nil, installRights},
		{"none-installed", install, "no Metawire is there yet", nil, noneInstalled},
		{"no-predecessor", install, "no predecessor is there", nil, noPredecessor},
		{"optional", install, "what the chart can use is told", nil, optional},
	}
}

// home is the namespace that is installed into.
func (t *Target) home() string { return cmp.Or(t.Namespace, "metawire") }

// installRights: the person may create what the chart has. Whoever creates roles
// must also have what they grant: so that is asked for too.
func installRights(ctx context.Context, t *Target) finding {
	api, err := clientset.NewForConfig(t.Config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	ns := t.home()
	var needs []rights.Right
	_, err = api.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		needs = append(needs, rights.Right{Verb: "create", Resource: "namespaces"})
	}
	const rbac = "rbac.authorization.k8s.io"
	for _, r := range []rights.Right{
		{Group: rbac, Resource: "clusterroles"}, {Group: rbac, Resource: "clusterrolebindings"},
		{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"},
		{Resource: "serviceaccounts", Namespace: ns}, {Resource: "configmaps", Namespace: ns}, {Resource: "secrets", Namespace: ns}, {Resource: "services", Namespace: ns},
		{Group: "apps", Resource: "deployments", Namespace: ns}, {Group: "policy", Resource: "poddisruptionbudgets", Namespace: ns},
		{Group: rbac, Resource: "roles", Namespace: ns}, {Group: rbac, Resource: "rolebindings", Namespace: ns},
	} {
		r.Verb = "create"
		needs = append(needs, r)
	}
	// What the daemons' roles grant besides.
	needs = append(needs,
		rights.Right{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"}, rights.Right{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
		rights.Right{Verb: "create", Resource: "events"},
		rights.Right{Verb: "get", Group: "metawire.dev", Resource: "nodes", Sub: "stream"}, rights.Right{Verb: "list", Group: "metawire.dev", Resource: "nodes", Sub: "stream"},
	)
	for _, verb := range []string{"list", "watch", "patch"} {
		needs = append(needs, rights.Right{Verb: verb, Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"})
	}
	for _, verb := range []string{"list", "watch", "update"} {
		needs = append(needs, rights.Right{Verb: verb, Resource: "secrets", Namespace: ns})
	}
	for _, k := range t.Types {
		if k.Streamed {
			needs = append(needs, rights.Right{Verb: "list", Group: k.Group, Resource: k.Resource}, rights.Right{Verb: "watch", Group: k.Group, Resource: k.Resource})
		}
	}
	missing, err := rights.Missing(ctx, api, nil, needs)
	if err != nil {
		return unread(err, "create selfsubjectaccessreviews, as everybody who is logged in may")
	}
	if len(missing) > 0 {
		return fail("have somebody install it who may, such as a cluster-admin, or be given these rights", "you may not: "+rights.List(missing))
	}
	return fine(fmt.Sprintf("all %d rights that an install into namespace %s needs", len(needs), ns))
}

func noneInstalled(ctx context.Context, t *Target) finding {
	api, err := clientset.NewForConfig(t.Config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	there, err := remains(ctx, api)
	if err != nil {
		return unread(err, "list deployments in all namespaces, and mutatingwebhookconfigurations")
	}
	var left []string
	for _, r := range there {
		left = append(left, r.String())
	}
	ns, err := api.CoreV1().Namespaces().Get(ctx, t.home(), metav1.GetOptions{})
	if err == nil && ns.DeletionTimestamp != nil {
		left = append(left, "namespace "+ns.Name+", which is being deleted")
	}
	if len(left) > 0 {
		return fail("metawire check looks at what is installed; helm upgrade changes it, helm uninstall removes it. Two releases would wire the same Falco pods", left...)
	}
	return fine()
}

// predecessors are how the helm.sh/chart labels of the old charts begin.
func predecessors() []string {
	return []string{"k8s-metacollector-", "firefly-k8s-collector-", "infralight-k8s-collector-"}
}

func noPredecessor(ctx context.Context, t *Target) finding {
	api, err := clientset.NewForConfig(t.Config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	var found []string
	is := func(kind string, o metav1.Object) {
		chart := o.GetLabels()["helm.sh/chart"]
		if slices.ContainsFunc(predecessors(), func(prefix string) bool { return strings.HasPrefix(chart, prefix) }) {
			found = append(found, fmt.Sprintf("%s %s/%s of chart %s", kind, o.GetNamespace(), o.GetName(), chart))
		}
	}
	deployments, err := api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return unread(err, "list deployments in all namespaces")
	}
	for i := range deployments.Items {
		is("Deployment", &deployments.Items[i])
	}
	jobs, err := api.BatchV1().CronJobs("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return unread(err, "list cronjobs in all namespaces")
	}
	for i := range jobs.Items {
		is("CronJob", &jobs.Items[i])
	}
	if len(found) > 0 {
		return warn("do not install beside it: metawire migrate --dry-run shows how it is moved over, and metawire migrate does it", found...)
	}
	return fine()
}

// optional says what of the chart's options the cluster has what they need for.
func optional(_ context.Context, t *Target) finding {
	api, err := clientset.NewForConfig(t.Config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	groups, err := api.Discovery().ServerGroups()
	if err != nil {
		return unread(err, "read which API groups there are")
	}
	serves := func(name string) bool {
		for _, g := range groups.Groups {
			if g.Name == name {
				return true
			}
		}
		return false
	}
	var details []string
	for _, o := range []struct{ group, with, without string }{
		{"cert-manager.io", "cert-manager is there: tls.source may be certManager", "no cert-manager: leave tls.source at selfManaged, or provide a Secret"},
		{"monitoring.coreos.com", "the Prometheus operator is there: monitoring.serviceMonitor.enabled may be true", "no Prometheus operator: leave monitoring.serviceMonitor.enabled at false"},
	} {
		if serves(o.group) {
			details = append(details, o.with)
		} else {
			details = append(details, o.without)
		}
	}
	return fine(details...)
}
