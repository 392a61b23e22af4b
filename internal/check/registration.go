package check

import (
	"context"
	"fmt"
	"slices"

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
		return fail("without one no Falco pod is wired; those that are made meanwhile stay unwired until they are made anew. "+t.reinstall(), "the release's MutatingWebhookConfiguration is not there")
	}
	service, bad := t.service(ctx, installation.Webhook)
	if service == nil {
		return bad
	}
	var wrong []string
	for i := range hooks {
		h := &hooks[i]
		if s := h.ClientConfig.Service; s == nil || s.Namespace != service.Namespace || s.Name != service.Name {
			wrong = append(wrong, fmt.Sprintf("webhook %s is not called at Service %s of namespace %s", h.Name, service.Name, service.Namespace))
		} else if port := portNumber(s.Port); !slices.Contains(portsOf(service), port) {
			wrong = append(wrong, fmt.Sprintf("webhook %s is called at port %d of Service %s, which has the ports %v", h.Name, port, service.Name, portsOf(service)))
		}
		wrong = append(wrong, misses(h, &t.config.Report.NamespaceSelector)...)
		wrong = append(wrong, unmet(h)...)
	}
	if len(wrong) > 0 {
		return fail("somebody changed the MutatingWebhookConfiguration, and an upgrade may leave in it what was added: kubectl delete mutatingwebhookconfigurations -l "+
			t.found.All().LabelSelector+". Then "+t.reinstall(), wrong...)
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

// misses says which Falco pods a webhook does not see that it should.
func misses(h *admissionv1.MutatingWebhook, namespaces *metav1.LabelSelector) (all []string) {
	pods := func(r admissionv1.RuleWithOperations) bool {
		has := func(all []string, one string) bool { return slices.Contains(all, one) || slices.Contains(all, "*") }
		return has(r.APIGroups, "") && has(r.APIVersions, "v1") && has(r.Resources, "pods") &&
			(slices.Contains(r.Operations, admissionv1.Create) || slices.Contains(r.Operations, admissionv1.OperationAll))
	}
	if !slices.ContainsFunc(h.Rules, pods) {
		all = append(all, fmt.Sprintf("webhook %s is not called when pods are created: its rules are %v", h.Name, h.Rules))
	}
	if s, err := metav1.LabelSelectorAsSelector(h.ObjectSelector); err != nil || !s.Matches(labels.Set{}) {
		all = append(all, fmt.Sprintf("webhook %s sees only pods with %s (objectSelector)", h.Name, metav1.FormatLabelSelector(h.ObjectSelector)))
	}
	if is, want := metav1.FormatLabelSelector(h.NamespaceSelector), metav1.FormatLabelSelector(namespaces); is != want {
		all = append(all, fmt.Sprintf("webhook %s sees namespaces with %s (namespaceSelector), and the release is for those with %s", h.Name, is, want))
	}
	return all
}
