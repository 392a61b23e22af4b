package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/internal/installation"
)

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
		return fail("you must be able to list services and configmaps in the namespace of the release; name it: -n NAMESPACE", err.Error())
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
		return fail("install it again when the namespace is gone: "+t.install(), append(details, fmt.Sprintf("namespace %s is being deleted, and the release with it", ns.Name))...)
	}
	others, wired, err := t.others(ctx, api)
	if err != nil { // as ownRights has said
		return fine(details...)
	}
	if len(others) == 0 {
		return fine(details...)
	}
	const keep = "Keep one: helm -n NAMESPACE uninstall RELEASE, and delete what is left of it"
	details = append(details, "there is more of Metawire: "+joined(others))
	if wired {
		return fail("Falco pods are wired by each webhook that sees them, and the last one holds. "+keep, details...)
	}
	return warn("two releases read the API twice, and each counts Falco pods. "+keep, details...)
}

// others returns what there is of other releases, and whether there are webhooks of
// them beside one of this release.
func (t *Target) others(ctx context.Context, api clientset.Interface) (all []remain, wired bool, err error) {
	if all, err = remains(ctx, api); err != nil {
		return nil, false, err
	}
	// By its name too: where it leads is for the check of the registration to judge.
	own := ""
	if c, err := t.webhookConfiguration(ctx); err == nil {
		own = c.Configuration
	}
	all = slices.DeleteFunc(all, func(r remain) bool {
		return r.release == t.found.Release && (r.namespace == t.found.Namespace || r.kind == hookKind && r.name == own)
	})
	return all, wires(t) == "" && slices.ContainsFunc(all, func(r remain) bool { return r.kind == hookKind }), nil
}

const hookKind = "MutatingWebhookConfiguration"

// remain is an object of a release.
type remain struct{ kind, name, namespace, release string }

func (r remain) String() string {
	return fmt.Sprintf("%s %s of release %s in namespace %s", r.kind, r.name, r.release, r.namespace)
}

func joined(all []remain) string {
	texts := make([]string, 0, len(all))
	for _, r := range all {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, "; ")
}

// remains returns the objects of any release that stand for it: the Deployments,
// and the webhook's configuration, which is not in a namespace and so stays when
// only that is deleted.
func remains(ctx context.Context, api clientset.Interface) (all []remain, err error) {
	ours := metav1.ListOptions{LabelSelector: installation.PartOf}
	deployments, err := api.AppsV1().Deployments("").List(ctx, ours)
	if err != nil {
		return nil, err
	}
	for _, d := range deployments.Items {
		all = append(all, remain{"Deployment", d.Name, d.Namespace, installation.ReleaseOf(&d)})
	}
	configurations, err := api.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, ours)
	if err != nil {
		return nil, err
	}
	for _, c := range configurations.Items {
		namespace := cmp.Or(installation.HelmNamespaceOf(&c), "unknown")
		for _, w := range c.Webhooks {
			if s := w.ClientConfig.Service; s != nil {
				namespace = s.Namespace
			}
		}
		all = append(all, remain{hookKind, c.Name, namespace, installation.ReleaseOf(&c)})
	}
	return all, nil
}

// serviceless returns the collectors' Deployment of a release; its Service was not
// found.
func serviceless(ctx context.Context, api clientset.Interface) *appsv1.Deployment {
	list, err := api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{LabelSelector: installation.PartOf + ",app.kubernetes.io/component=" + installation.Collector})
	if err != nil || len(list.Items) == 0 {
		return nil
	}
	return &list.Items[0]
}

// nothing says more of a release that was not found.
func nothing(ctx context.Context, t *Target, api clientset.Interface) finding {
	namespace := t.Namespace
	details := []string{"no Metawire is installed in any namespace of " + t.Config.Host}
	if namespace != "" {
		details[0] = fmt.Sprintf("no Metawire is installed in namespace %s of %s", namespace, t.Config.Host)
	}
	if namespace != "" {
		if elsewhere, err := installation.Find(ctx, t.Config, ""); err == nil {
			return fail("look there: metawire check -n "+elsewhere.Namespace, append(details, fmt.Sprintf("release %s is in namespace %s", elsewhere.Release, elsewhere.Namespace))...)
		} else if errors.Is(err, installation.ErrSeveral) {
			return fail("look at one of them: metawire check -n NAMESPACE", append(details, err.Error())...)
		}
	}
	if left, err := remains(ctx, api); err == nil && len(left) > 0 {
		details = append(details, "this is left of one: "+joined(left))
		if d := serviceless(ctx, api); d != nil {
			return fail(t.again(installation.HelmNamespaceOf(d), installation.ReleaseOf(d)),
				append(details, fmt.Sprintf("release %s in namespace %s has a Deployment of the collectors, and no Service that leads to it", installation.ReleaseOf(d), d.Namespace))...)
		}
		return fail("it was taken away without helm uninstall, such as by deleting its namespace. Install it again, or remove the rest, of each release by its name: "+
			"kubectl delete mutatingwebhookconfigurations,clusterroles,clusterrolebindings -l "+installation.PartOf+",app.kubernetes.io/instance=RELEASE", details...)
	}
	if namespace != "" {
		ns, err := api.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if err == nil && ns.Status.Phase == corev1.NamespaceTerminating {
			details = append(details, "namespace "+namespace+" is being deleted")
		}
	}
	return fail(t.install(), details...)
}
