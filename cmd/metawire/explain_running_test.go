package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/wiring"
)

// wiredFalco is a Falco pod that the webhook and the init container have wired.
func wiredFalco() corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "falco", Name: "falco-x", UID: "u", Annotations: map[string]string{
			wiring.StatusAnnotation: wiring.Status{Version: "1", Outcome: wiring.Wired, Reason: "as it should be"}.String(),
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "falco", Image: "falcosecurity/falco:0.43.1"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{{
			Name: wiring.InitContainer,
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Message: wiring.Verdict{Wired: true, Ticket: true, Reason: "it subscribes"}.String(),
			}},
		}}},
	}
}

// TestExplainPodThatNobodyWouldWireNow: only a namespace that the webhook's selector
// leaves out is left alone; without a webhook a wired pod is one all the same.
func TestExplainPodThatNobodyWouldWireNow(t *testing.T) {
	registered := func(out ...string) any {
		return admissionv1.MutatingWebhookConfigurationList{Items: []admissionv1.MutatingWebhookConfiguration{{Webhooks: []admissionv1.MutatingWebhook{{
			NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "name", Operator: metav1.LabelSelectorOpNotIn, Values: out}}},
		}}}}}
	}
	const registrations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	for name, c := range map[string]struct {
		change func(answers)
		wired  bool
		state  wiring.State
		today  string // empty: as it was
	}{
		"the webhook is called": {func(a answers) { a[registrations] = registered("other") }, true, wiring.StateWired, ""},
		"its namespace is left out": {
			func(a answers) { a[registrations] = registered("falco") }, false, wiring.StateOptedOut, `the webhook leaves namespace "falco" out`,
		},
		"the configuration was deleted": {
			func(answers) {}, true, wiring.StateWired, "there is no MutatingWebhookConfiguration of the release, so nothing wires pods",
		},
		"no webhook": {func(a answers) {
			a["/api/v1/namespaces/metawire/configmaps"] = corev1.ConfigMapList{Items: []corev1.ConfigMap{{Data: map[string]string{"collector.yaml": "stream: {tls: {mode: disabled}}"}}}}
		}, true, wiring.StateWired, "the release has no webhook (webhook.enabled is false), so nothing wires pods"},
	} {
		t.Run(name, func(t *testing.T) {
			a := installed()
			a["/api/v1/namespaces/falco"] = corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "falco", Labels: map[string]string{"name": "falco"}}}
			a["/api/v1/namespaces/falco/pods/falco-x"] = wiredFalco()
			c.change(a)
			kubeconfig := a.serve(t)
			run := start(t, "explain", "pod", "falco/falco-x", "--kubeconfig", kubeconfig, "-o", "json")
			if err := <-run.done; errors.Is(err, errFinding) == c.wired || err != nil && !errors.Is(err, errFinding) {
				t.Errorf("error %v, wired: %v", err, c.wired)
			}
			var x explanation
			if err := json.Unmarshal([]byte(run.stdout.String()), &x); err != nil || x.State != c.state || x.Wired != c.wired || !strings.Contains(x.Now.Reason, c.today) {
				t.Errorf("error %v, want %s and %q\n%s", err, c.state, c.today, run.stdout)
			}
			run = start(t, "explain", "pod", "falco/falco-x", "--kubeconfig", kubeconfig)
			if err := <-run.done; errors.Is(err, errFinding) == c.wired {
				t.Errorf("for people: error %v, wired: %v", err, c.wired)
			}
			if text := run.stdout.String(); strings.Contains(text, "  today ") != (c.today != "") || !strings.Contains(text, c.today) ||
				strings.Contains(text, "would say: there is no") || c.wired == strings.Contains(text, "alone") {
				t.Errorf("want %q in\n%s", c.today, text)
			}
		})
	}
}
