package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/internal/installation"
)

// install is the command that installs a release.
const install = "helm install metawire charts/metawire -n metawire --create-namespace"

func installed(ctx context.Context, t *Target) finding {
	t.found = nil
	api, err := clientset.NewForConfig(t.Config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	found, err := installation.Find(ctx, t.Config, t.Namespace)
	switch {
	case errors.Is(err, installation.ErrNotFound):
		return nothing(ctx, t, api)
	case errors.Is(err, installation.ErrSeveral):
		return fail("Falco pods are wired by each of them, and the last one holds: keep one, and remove the other with helm uninstall; or look at one: -n NAMESPACE", err.Error())
	case apierrors.IsForbidden(err):
		return unread(err, "list services and configmaps in the namespace of the release")
	case err != nil:
		return fail("read the message: what it names is damaged or may not be read; helm upgrade writes the release's objects anew", err.Error())
	}
	if err := t.config.read(ctx, found); err != nil {
		return fail("helm upgrade writes the ConfigMap anew", err.Error())
	}
	t.found = found
	stream := "without a stream"
	if found.Port != 0 {
		stream = "stream at " + found.Addr()
	}
	details := []string{fmt.Sprintf("release %s %s in namespace %s, %s", found.Release, found.Version, found.Namespace, stream)}
	ns, err := api.CoreV1().Namespaces().Get(ctx, found.Namespace, metav1.GetOptions{})
	if err == nil && ns.DeletionTimestamp != nil {
		return fail("install it again when the namespace is gone: "+install, append(details, fmt.Sprintf("namespace %s is being deleted, and the release with it", ns.Name))...)
	}
	others, err := others(ctx, api, found)
	if err != nil { // as ownRights has said
		return fine(details...)
	}
	if len(others) > 0 {
		return fail("Falco pods are wired by each webhook, and the last one holds; two releases also read the API twice. Keep one: helm -n NAMESPACE uninstall RELEASE, and delete what is left of it",
			append(details, "there is more of Metawire: "+strings.Join(others, "; "))...)
	}
	return fine(details...)
}

// others returns what there is of other releases.
func others(ctx context.Context, api clientset.Interface, found *installation.Installation) ([]string, error) {
	all, err := remains(ctx, api)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s string) bool {
		return strings.HasSuffix(s, ownedBy(found.Namespace, found.Release))
	}), nil
}

func ownedBy(namespace, release string) string {
	return fmt.Sprintf(" of release %s in namespace %s", release, namespace)
}

// remains returns the objects of any release that stand for it: the Deployments,
// and the webhook's configuration, which is not in a namespace and so stays when
// only that is deleted.
func remains(ctx context.Context, api clientset.Interface) (all []string, err error) {
	ours := metav1.ListOptions{LabelSelector: installation.PartOf}
	deployments, err := api.AppsV1().Deployments("").List(ctx, ours)
	if err != nil {
		return nil, err
	}
	for _, d := range deployments.Items {
		all = append(all, "Deployment "+d.Name+ownedBy(d.Namespace, installation.ReleaseOf(&d)))
	}
	configurations, err := api.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, ours)
	if err != nil {
		return nil, err
	}
	for _, c := range configurations.Items {
		namespace := "unknown"
		for _, w := range c.Webhooks {
			if s := w.ClientConfig.Service; s != nil {
				namespace = s.Namespace
			}
		}
		all = append(all, "MutatingWebhookConfiguration "+c.Name+ownedBy(namespace, installation.ReleaseOf(&c)))
	}
	return all, nil
}

// serviceless returns a release whose collectors are there, and their Service is
// not.
func serviceless(ctx context.Context, api clientset.Interface) (namespace, release string) {
	list, err := api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{LabelSelector: installation.PartOf + ",app.kubernetes.io/component=" + installation.Collector})
	if err != nil || len(list.Items) == 0 {
		return "", ""
	}
	d := &list.Items[0]
	return d.Namespace, installation.ReleaseOf(d)
}

// nothing says more of a release that was not found.
func nothing(ctx context.Context, t *Target, api clientset.Interface) finding {
	namespace := t.Namespace
	details := []string{"no Metawire is installed in any namespace of " + t.Config.Host}
	if namespace != "" {
		details[0] = fmt.Sprintf("no Metawire is installed in namespace %s of %s", namespace, t.Config.Host)
	}
	if left, err := remains(ctx, api); err == nil && len(left) > 0 {
		details = append(details, "this is left of one: "+strings.Join(left, "; "))
		if ns, release := serviceless(ctx, api); release != "" {
			return fail(again(ns, release), append(details, fmt.Sprintf("release %s in namespace %s has a Deployment of the collectors, and no Service that leads to it", release, ns))...)
		}
		return fail("it was taken away without helm uninstall, such as by deleting its namespace. Install it again, or remove the rest, of each release by its name: "+
			"kubectl delete mutatingwebhookconfigurations,clusterroles,clusterrolebindings -l "+installation.PartOf+",app.kubernetes.io/instance=RELEASE", details...)
	}
	if namespace != "" {
		ns, err := api.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if err == nil && ns.Status.Phase == corev1.NamespaceTerminating {
			details = append(details, "namespace "+namespace+" is being deleted")
		}
		if elsewhere, err := installation.Find(ctx, t.Config, ""); err == nil {
			return fail("look there: metawire check -n "+elsewhere.Namespace, append(details, fmt.Sprintf("release %s is in namespace %s", elsewhere.Release, elsewhere.Namespace))...)
		}
	}
	return fail(install, details...)
}
