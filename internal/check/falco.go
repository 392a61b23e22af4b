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
func falcoPods(ctx context.Context, t *Target) ([]string, string) {
	judge := wiring.Judge{Now: t.Now}
	if t.found.TLS {
		bundle, err := t.found.Authorities(ctx)
		if err != nil {
			return []string{err.Error()}, "see the check of the webhook's certificate"
		}
		judge.Authorities = wiring.Fingerprints(bundle)
	}
	seen, err := seenNamespaces(ctx, t)
	if err != nil {
		return []string{err.Error()}, "this user must be able to list namespaces and mutatingwebhookconfigurations"
	}
	counts, bad := map[wiring.State]int{}, []string{}
	list := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return t.found.Client().CoreV1().Pods("").List(ctx, o)
	})
	err = list.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		p, ok := o.(*corev1.Pod)
		if !ok || !isFalco(p) || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			return nil
		}
		marks := wiring.PodOf(p)
		marks.LeftOut = !seen[p.Namespace]
		f := judge.Pod(marks)
		counts[f.State]++
		if f.Reason != "" {
			bad = append(bad, fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, f.Message))
		}
		return nil
	})
	if err != nil {
		return []string{err.Error()}, "this user must be able to list pods in all namespaces"
	}
	details := []string{summary(counts)}
	slices.Sort(bad)
	for i, b := range bad {
		if i == maxListed {
			details = append(details, fmt.Sprintf("and %d more", len(bad)-maxListed))
			break
		}
		details = append(details, b)
	}
	if len(bad) > 0 {
		return details, "metawire explain pod NAMESPACE/NAME says more of each"
	}
	return details, ""
}

func isFalco(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return falco.Is(c.Name, c.Image) })
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
