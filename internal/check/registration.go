package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/metawire/metawire/internal/installation"
)

// registration looks at what the API server is told of the webhook. Where that is
// wrong, Falco pods are admitted unwired without a word.
func registration(ctx context.Context, t *Target) finding {
	hooks, err := t.found.Webhooks(ctx)
	if err != nil {
		return unread(err, "list mutatingwebhookconfigurations")
	}
	if len(hooks) == 0 {
		return fail("without one no Falco pod is wired; those that are made meanwhile stay unwired until they are made anew. "+t.reinstall(), "the release's MutatingWebhookConfiguration is not there, or has no webhook in it")
	}
	namespaces, err := t.found.Client().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return unread(err, "list namespaces")
	}
	service, bad := t.service(ctx, installation.Webhook)
	if service == nil {
		return bad
	}
	where, err := t.canaryNamespace(ctx)
	if err != nil {
		return unread(err, "list pods in all namespaces")
	}
	where = cmp.Or(where, metav1.NamespaceDefault)
	falcos, err := t.falcos(ctx)
	if err != nil {
		return unread(err, "list pods in all namespaces")
	}
	var wrong, odd []string
	for i := range hooks {
		h := &hooks[i]
		if s := h.ClientConfig.Service; s == nil || s.Namespace != service.Namespace || s.Name != service.Name {
			wrong = append(wrong, fmt.Sprintf("webhook %s is not called at Service %s of namespace %s", h.Name, service.Name, service.Namespace))
		} else if port := portNumber(s.Port); !slices.Contains(portsOf(service), port) {
			wrong = append(wrong, fmt.Sprintf("webhook %s is called at port %d of Service %s, which has the ports %v", h.Name, port, service.Name, portsOf(service)))
		}
		wrong = append(wrong, misses(h)...)
		wrong = append(wrong, unmet(h, where, falcos)...)
		if text, loses := otherNamespaces(h, &t.config.Report.NamespaceSelector, namespaces.Items); loses {
			wrong = append(wrong, text)
		} else if text != "" {
			odd = append(odd, text)
		}
	}
	if len(wrong) > 0 {
		return fail("somebody changed the MutatingWebhookConfiguration, and an upgrade may leave in it what was added: kubectl delete mutatingwebhookconfigurations -l "+
			t.found.All().LabelSelector+". Then "+t.reinstall(), wrong...)
	}
	if len(odd) > 0 {
		return warn("nothing is lost by it now. If a part of the cluster writes it there, as the admissions enforcer of AKS does, leave it", odd...)
	}
	if h := hooks[0]; h.FailurePolicy != nil && *h.FailurePolicy == admissionv1.Fail {
		return warn("set failurePolicy to Ignore again: "+t.reinstall(), fmt.Sprintf("webhook %s has failurePolicy Fail: while the webhooks are away, no Falco pod is made", h.Name))
	}
	return fine("for namespaces with " + metav1.FormatLabelSelector(hooks[0].NamespaceSelector))
}

// httpsPort is the port of a webhook's Service that says none.
const httpsPort = 443

func portNumber(p *int32) int32 {
	if p == nil {
		return httpsPort
	}
	return *p
}

func portsOf(s *corev1.Service) (all []int32) {
	for _, p := range s.Spec.Ports {
		all = append(all, p.Port)
	}
	return all
}

// written are rules, as operations and resources.
func written(rules []admissionv1.RuleWithOperations) string {
	var all []string
	for _, r := range rules {
		all = append(all, fmt.Sprintf("%v of %v in the API groups %q", r.Operations, r.Resources, r.APIGroups))
	}
	return strings.Join(all, "; ")
}

// misses says which Falco pods a webhook does not see that it should.
func misses(h *admissionv1.MutatingWebhook) (all []string) {
	pods := func(r admissionv1.RuleWithOperations) bool {
		has := func(all []string, one string) bool { return slices.Contains(all, one) || slices.Contains(all, "*") }
		return has(r.APIGroups, "") && has(r.APIVersions, "v1") && has(r.Resources, "pods") &&
			(slices.Contains(r.Operations, admissionv1.Create) || slices.Contains(r.Operations, admissionv1.OperationAll))
	}
	if !slices.ContainsFunc(h.Rules, pods) {
		all = append(all, fmt.Sprintf("webhook %s is not called when pods are created: its rules are %s", h.Name, written(h.Rules)))
	}
	if s, err := metav1.LabelSelectorAsSelector(h.ObjectSelector); err != nil || !s.Matches(labels.Set{}) {
		all = append(all, fmt.Sprintf("webhook %s sees only pods with %s (objectSelector)", h.Name, metav1.FormatLabelSelector(h.ObjectSelector)))
	}
	return all
}

// otherNamespaces says that a webhook sees other namespaces than the release is for,
// and whether one that there is loses by that.
func otherNamespaces(h *admissionv1.MutatingWebhook, selector *metav1.LabelSelector, namespaces []corev1.Namespace) (text string, loses bool) {
	is, want := metav1.FormatLabelSelector(h.NamespaceSelector), metav1.FormatLabelSelector(selector)
	if is == want {
		return "", false
	}
	sees, err := metav1.LabelSelectorAsSelector(h.NamespaceSelector)
	if err != nil {
		return fmt.Sprintf("webhook %s: namespaceSelector: %v", h.Name, err), true
	}
	wanted, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return "", false // the collectors refuse it
	}
	var lost []string
	for _, ns := range namespaces {
		if set := labels.Set(ns.Labels); ns.Name != metav1.NamespaceSystem && wanted.Matches(set) && !sees.Matches(set) {
			lost = append(lost, ns.Name)
		}
	}
	text = fmt.Sprintf("webhook %s sees namespaces with %s (namespaceSelector), and the release is for those with %s", h.Name, is, want)
	if len(lost) > 0 {
		text += ": it does not see " + strings.Join(bounded(lost), ", ")
	}
	return text, len(lost) > 0
}
