package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

// maxListed bounds the pods that are named.
const maxListed = 20

// falcoPods judges every Falco pod as the collector does.
func falcoPods(ctx context.Context, t *Target) finding {
	judge := wiring.Judge{Now: t.Now}
	if t.found.TLS {
		// Without one no pod is outdated; the check of the authorities says so.
		if bundle, _, err := t.bundle(ctx); err == nil {
			judge.Authorities = wiring.Fingerprints(bundle)
		}
	}
	pods, err := t.falcos(ctx)
	if err != nil {
		return unread(err, "list pods in all namespaces")
	}
	seen, err := seenNamespaces(ctx, t)
	if err != nil {
		return unread(err, "list namespaces and mutatingwebhookconfigurations")
	}
	counts, bad, odd, left := map[wiring.State]int{}, []string{}, []string{}, []string{}
	for i := range pods {
		p := &pods[i]
		marks := wiring.PodOf(p)
		marks.LeftOut = !seen[p.Namespace]
		f := judge.Pod(marks)
		counts[f.State]++
		if f.State == wiring.StateOptedOut {
			left = append(left, fmt.Sprintf("%s/%s opted out: %s", p.Namespace, p.Name, f.Message))
		}
		message := ""
		if f.Reason != "" {
			message = f.Message
		}
		if image := unpulled(p); image != "" {
			message = image
		} else if broken := t.broken(ctx, p, f.State); broken != "" {
			message = broken
		}
		if message == "" {
			continue
		}
		message = fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, message)
		if f.Reason == wiring.ReasonNoTicket { // it is served by its address
			odd = append(odd, message)
		} else {
			bad = append(bad, message)
		}
	}
	const hint = "each line says what to do; metawire explain pod NAMESPACE/NAME says more"
	switch {
	case len(bad) > 0:
		return fail(hint, slices.Concat([]string{summary(counts)}, bounded(bad), bounded(odd), bounded(left))...)
	case len(odd) > 0:
		return warn(hint, slices.Concat([]string{summary(counts)}, bounded(odd), bounded(left))...)
	}
	return fine(append([]string{summary(counts)}, bounded(left)...)...)
}

// broken says that Falco itself does not start although our init container is done:
// that may be by what we had it load.
func (t *Target) broken(ctx context.Context, p *corev1.Pod, state wiring.State) string {
	if state != wiring.StateWired && state != wiring.StateNoTicket && state != wiring.StateOutdated {
		return ""
	}
	for i := range p.Status.ContainerStatuses {
		s := &p.Status.ContainerStatuses[i]
		w := s.State.Waiting
		if !isFalcos(p, s.Name) || s.State.Running != nil || w != nil && (w.Reason == creating || w.Reason == initializing) {
			continue
		}
		c, ask, ok := containerCause(p, s)
		if !ok {
			continue
		}
		if ask == askLog {
			if m := t.lastWords(ctx, p, s.Name); m != "" {
				c.text += "; it said last: " + m
			}
		}
		if w != nil && isImage(w.Reason) {
			c.hint = "check Falco's own image"
		}
		return fmt.Sprintf("it is wired, and Falco does not run: %s. %s", strings.TrimSuffix(c.text, "."), c.hint)
	}
	return ""
}

// unpulled says that our init container's image cannot be pulled, at once; the
// collector, which reports it to everybody, has more patience.
func unpulled(p *corev1.Pod) string {
	for _, s := range p.Status.InitContainerStatuses {
		if w := s.State.Waiting; s.Name == wiring.InitContainer && w != nil && isImage(w.Reason) {
			return fmt.Sprintf("Falco cannot start: the image of its init container %s cannot be pulled: %s: %s. "+
				"Check the values image.repository, image.tag and webhook.imagePullSecrets (the Secrets must be in namespace %s), and make the pod anew. "+
				`To start Falco without Metawire, annotate the pod template with %s: "false".`, s.Name, w.Reason, w.Message, p.Namespace, wiring.InjectAnnotation)
		}
	}
	return ""
}

// bounded cuts a list that is too long to read.
func bounded(lines []string) []string {
	slices.Sort(lines)
	if more := len(lines) - maxListed; more > 0 {
		return append(lines[:maxListed:maxListed], fmt.Sprintf("and %d more", more))
	}
	return lines
}

// falcos returns the Falco pods of the cluster that are not finished.
func (t *Target) falcos(ctx context.Context) ([]corev1.Pod, error) {
	if t.listed != nil {
		return t.listed, nil
	}
	all := []corev1.Pod{}
	list := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return t.found.Client().CoreV1().Pods("").List(ctx, o)
	})
	err := list.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		if p, ok := o.(*corev1.Pod); ok && isFalco(p) && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			all = append(all, *p)
		}
		return nil
	})
	if err == nil {
		t.listed = all
	}
	return all, err
}

func isFalco(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return falco.Is(c.Name, c.Image) })
}

// isFalcos reports whether that container of the pod is Falco's.
func isFalcos(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == name && falco.Is(c.Name, c.Image) })
}

// seenNamespaces are those whose pods the webhook sees.
func seenNamespaces(ctx context.Context, t *Target) (map[string]bool, error) {
	selectors, err := t.found.NamespaceSelectors(ctx)
	if err != nil {
		return nil, err
	}
	namespaces, err := t.found.Client().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	seen := map[string]bool{}
	for _, ns := range namespaces.Items {
		seen[ns.Name] = len(selectors) == 0 || slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(ns.Labels)) })
	}
	return seen, nil
}

// summary says how many pods there are of each state.
func summary(counts map[wiring.State]int) string {
	var parts []string
	total := 0
	for _, s := range wiring.States() {
		if n := counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(s), "_", " ")))
			total += n
		}
	}
	if total == 0 {
		return "there is no Falco pod"
	}
	return fmt.Sprintf("Falco pods: %s", strings.Join(parts, ", "))
}
