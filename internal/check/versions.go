package check

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/installation"
)

// versions: the daemons' image, that of the init container, the chart and this
// command are of one version.
func versions(ctx context.Context, t *Target) finding {
	ns := t.found.Namespace
	list, err := t.found.Client().AppsV1().Deployments(ns).List(ctx, t.found.All())
	if err != nil {
		return unread(err, "list deployments in namespace "+ns)
	}
	images := map[string][]string{} // image -> who has it
	own := map[string]bool{}        // names of the daemons' containers, beside which others may put theirs
	for _, d := range list.Items {
		for _, c := range d.Spec.Template.Spec.Containers {
			images[c.Image] = append(images[c.Image], "Deployment "+d.Name)
			own[c.Name] = true
		}
	}
	if wires(t) == "" {
		if c, err := t.webhookConfiguration(ctx); err == nil {
			images[c.Image.Name] = append(images[c.Image.Name], "the init container of Falco pods")
		}
	}
	var details, bad []string
	for image, who := range images {
		details = append(details, fmt.Sprintf("image %s: %s", image, strings.Join(who, ", ")))
	}
	slices.Sort(details)
	if len(images) > 1 {
		bad = append(bad, "the daemons are not of one image")
	}
	for image := range images {
		if v := falco.Version(image); v != nil && isOther(v.String(), t.found.Version) {
			bad = append(bad, fmt.Sprintf("image %s is not of the chart's version, %s", image, t.found.Version))
		}
	}
	var pods []corev1.Pod
	for _, component := range []string{installation.Collector, installation.Webhook} {
		some, err := t.found.Pods(ctx, component)
		if err != nil {
			return unread(err, "list pods in namespace "+ns)
		}
		pods = append(pods, some...)
	}
	stale, builds := running(pods, images, own)
	stale = append(stale, t.saidVersions(ctx)...)
	if i := slices.IndexFunc(list.Items, func(d appsv1.Deployment) bool { return rolls(&d) }); i >= 0 && len(bad) == 0 && len(stale) > 0 {
		return warn(fmt.Sprintf("look again when it has ended: kubectl -n %s rollout status deployment/%s", ns, list.Items[i].Name),
			append(append([]string{"a rollout of Deployment " + list.Items[i].Name + " is under way"}, stale...), details...)...)
	}
	if bad = append(bad, stale...); len(bad) > 0 {
		return fail("leave image.tag and image.digest empty, so that they are the chart's, and: "+t.reinstall(), append(bad, details...)...)
	}
	if builds > 1 {
		return warn(fmt.Sprintf("the image's tag was pushed again, and nodes hold what they pulled: use image.digest, or kubectl -n %s rollout restart deployment", ns),
			append(details, fmt.Sprintf("%d different builds run under one name", builds))...)
	}
	if isOther(t.Version, t.found.Version) {
		return warn("use the command of the release's version: it knows what it looks at", append(details, fmt.Sprintf("this command is %s, the release %s", t.Version, t.found.Version))...)
	}
	return fine(details...)
}

// rolls reports whether a Deployment has not yet the pods that it should have.
func rolls(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration < d.Generation || d.Status.UpdatedReplicas < d.Status.Replicas
}

// running looks at what the daemons' pods run, in containers of these names: which have an image that no
// Deployment has any more, and of how many builds they are. Where the cluster has
// images come from a mirror, the registry is another.
func running(pods []corev1.Pod, images map[string][]string, own map[string]bool) (stale []string, builds int) {
	ids, known := map[string]bool{}, map[string]bool{}
	for image := range images {
		known[path.Base(image)] = true
	}
	for i := range pods {
		p := &pods[i]
		for _, c := range p.Spec.Containers {
			if own[c.Name] && !known[path.Base(c.Image)] {
				stale = append(stale, fmt.Sprintf("pod %s still runs image %s", p.Name, c.Image))
			}
		}
		for _, s := range p.Status.ContainerStatuses {
			if s.ImageID != "" && own[s.Name] && !slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return s.Name == c.Name && strings.Contains(c.Image, "@") }) {
				ids[s.ImageID] = true
			}
		}
	}
	return stale, len(ids)
}

// saidVersions returns which versions the daemons say that they are of, other than
// the release. One that says nothing, because it is older or not ready, is passed
// over.
func (t *Target) saidVersions(ctx context.Context) (others []string) {
	parts := []string{installation.Collector}
	if wires(t) == "" {
		parts = append(parts, installation.Webhook)
	}
	for _, component := range parts {
		said, err := t.found.MetricBy(ctx, component, "metawire_build_info", "version")
		if err != nil {
			continue
		}
		for v, n := range said {
			if v != "" && isOther(v, t.found.Version) {
				others = append(others, fmt.Sprintf("%.0f pods of the %s say that they are of version %s, the release is %s", n, component, v, t.found.Version))
			}
		}
	}
	slices.Sort(others)
	return others
}
