package chart_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/metawire/metawire/internal/falco"
)

func webhookConfiguration(t *testing.T, values string) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	_, objs := mustRender(t, loadChart(t), values)
	c, err := find[admissionv1.MutatingWebhookConfiguration](objs, "MutatingWebhookConfiguration", "zz-metawire-webhook")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Webhooks) != 1 {
		t.Fatalf("%d webhooks", len(c.Webhooks))
	}
	return c
}

// TestConfigurationAnnotations: yours stand beside what cert-manager is told by.
func TestConfigurationAnnotations(t *testing.T) {
	const disabled, from = "admissions.enforcer/disabled", "cert-manager.io/inject-ca-from"
	for _, tc := range []struct {
		values string
		want   map[string]string
	}{
		{"", nil},
		{`{webhook: {configurationAnnotations: {admissions.enforcer/disabled: "true"}}}`, map[string]string{disabled: "true"}},
		{`{tls: {source: certManager}, webhook: {configurationAnnotations: {admissions.enforcer/disabled: "true", cert-manager.io/inject-ca-from: other/other}}}`,
			map[string]string{disabled: "true", from: namespace + "/metawire-webhook"}},
	} {
		if d := cmp.Diff(tc.want, webhookConfiguration(t, tc.values).Annotations); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.values, d)
		}
	}
}

// TestWebhookFailsOpen: no pod fails because of the webhook, whatever the
// values are.
func TestWebhookFailsOpen(t *testing.T) {
	for name, r := range renderAll(t) {
		for _, o := range r.objects {
			if o.GetKind() != "MutatingWebhookConfiguration" {
				continue
			}
			c, err := find[admissionv1.MutatingWebhookConfiguration](r.objects, o.GetKind(), o.GetName())
			if err != nil {
				t.Fatal(err)
			}
			w := c.Webhooks[0]
			got := []any{*w.FailurePolicy, *w.TimeoutSeconds, *w.SideEffects, *w.ReinvocationPolicy, w.ClientConfig.CABundle == nil, w.Rules}
			scope := admissionv1.NamespacedScope
			want := []any{
				admissionv1.Ignore, int32(3), admissionv1.SideEffectClassNone, admissionv1.IfNeededReinvocationPolicy, true,
				[]admissionv1.RuleWithOperations{{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: &scope},
				}},
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
			if !strings.HasPrefix(c.Name, "zz-") {
				t.Errorf("%s: %s does not sort late", name, c.Name)
			}
		}
	}
}

// TestWebhookReachesItsService: the configuration names the Service, and a
// port of it that leads to the webhook.
func TestWebhookReachesItsService(t *testing.T) {
	ref := webhookConfiguration(t, "").Webhooks[0].ClientConfig.Service
	_, objs := mustRender(t, loadChart(t), "")
	svc, err := find[corev1.Service](objs, "Service", ref.Name)
	if err != nil {
		t.Fatal(err)
	}
	if svc.Namespace != ref.Namespace {
		t.Errorf("the Service is in %s, the configuration says %s", svc.Namespace, ref.Namespace)
	}
	if !slices.ContainsFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == *ref.Port && p.TargetPort.StrVal == "https" }) {
		t.Errorf("port %d is none of the Service's that leads to the webhook: %v", *ref.Port, svc.Spec.Ports)
	}
}

// TestWebhookNamespaces: which namespaces' pods it is asked about.
func TestWebhookNamespaces(t *testing.T) {
	const user = "webhook: {namespaceSelector: {matchLabels: {team: security}, matchExpressions: [{key: env, operator: NotIn, values: [test]}]}}"
	for _, tc := range []struct {
		name, values string
		labels       labels.Set
		asked        bool
	}{
		{"any", "", labels.Set{"kubernetes.io/metadata.name": "falco"}, true},
		{"kube-system", "", labels.Set{"kubernetes.io/metadata.name": "kube-system"}, false},
		{"opted out", "", labels.Set{"metawire.dev/inject": "false"}, false},
		{"opted in", "", labels.Set{"metawire.dev/inject": "true"}, true},
		{"selected", user, labels.Set{"team": "security", "env": "prod"}, true},
		{"not selected by label", user, labels.Set{"team": "web"}, false},
		{"not selected by expression", user, labels.Set{"team": "security", "env": "test"}, false},
		{"selected kube-system", user, labels.Set{"team": "security", "kubernetes.io/metadata.name": "kube-system"}, false},
		{"selected and opted out", user, labels.Set{"team": "security", "metawire.dev/inject": "false"}, false},
	} {
		selector, err := metav1.LabelSelectorAsSelector(webhookConfiguration(t, tc.values).Webhooks[0].NamespaceSelector)
		if err != nil {
			t.Fatal(err)
		}
		if got := selector.Matches(tc.labels); got != tc.asked {
			t.Errorf("%s: asked: %t, want %t", tc.name, got, tc.asked)
		}
	}
}

// TestWebhookLeavesOwnPodsAlone: the release's pods never wait for it, be they
// labelled as users will.
func TestWebhookLeavesOwnPodsAlone(t *testing.T) {
	const values = `{collector: {podLabels: {metawire.dev/own: "x"}}, webhook: {podLabels: {metawire.dev/own: ""}}}`
	selector, err := metav1.LabelSelectorAsSelector(webhookConfiguration(t, values).Webhooks[0].ObjectSelector)
	if err != nil {
		t.Fatal(err)
	}
	if !selector.Matches(labels.Set{"app.kubernetes.io/name": "falco", "app.kubernetes.io/instance": release, "app.kubernetes.io/part-of": "metawire"}) {
		t.Error("it leaves a Falco alone")
	}
	_, objs := mustRender(t, loadChart(t), values)
	for _, name := range []string{"metawire-collector", "metawire-webhook"} {
		d, err := find[appsv1.Deployment](objs, "Deployment", name)
		if err != nil {
			t.Fatal(err)
		}
		if selector.Matches(labels.Set(d.Spec.Template.Labels)) {
			t.Errorf("it is asked about the pods of %s: %v", name, d.Spec.Template.Labels)
		}
	}
	test, err := find[corev1.Pod](objs, "Pod", "metawire-test-stream")
	if err != nil {
		t.Fatal(err)
	}
	if selector.Matches(labels.Set(test.Labels)) {
		t.Errorf("it is asked about the test pod: %v", test.Labels)
	}
}

// TestWebhookInTheNodesNetwork: on request only, and then a rollout ends where
// every node has a webhook, whose ports are taken.
func TestWebhookInTheNodesNetwork(t *testing.T) {
	for values, want := range map[string][]any{
		"":                             {false, corev1.DNSPolicy(""), "0"},
		"webhook: {hostNetwork: true}": {true, corev1.DNSClusterFirstWithHostNet, "1"},
	} {
		_, objs := mustRender(t, loadChart(t), values)
		d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-webhook")
		if err != nil {
			t.Fatal(err)
		}
		pod := d.Spec.Template.Spec
		got := []any{pod.HostNetwork, pod.DNSPolicy, d.Spec.Strategy.RollingUpdate.MaxUnavailable.String()}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", values, diff)
		}
		collector, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
		if err != nil {
			t.Fatal(err)
		}
		if collector.Spec.Template.Spec.HostNetwork {
			t.Errorf("%q: the collectors are in the nodes' network", values)
		}
	}
}

// TestConditionsKnowFalco: the API server, by the expression, and the webhook's
// own code take the same images for Falco.
func TestConditionsKnowFalco(t *testing.T) {
	conditions := webhookConfiguration(t, "").Webhooks[0].MatchConditions
	found := regexp.MustCompile(`\.matches\('([^']+)'\)`).FindStringSubmatch(conditions[len(conditions)-1].Expression)
	if found == nil {
		t.Fatalf("no regular expression in %v", conditions)
	}
	expression := regexp.MustCompile(found[1]) // CEL and Go have the same syntax, RE2's
	for image, want := range map[string]bool{
		"falco": true, "falcosecurity/falco:0.41.0": true, "reg.local:5000/team/falco:0.41.0-debian": true, "localhost:5000/falco": true,
		"docker.io/falcosecurity/falco@sha256:0a": true, "falco:0.43.1@sha256:0a": true,
		"falcosidekick": false, "falcosecurity/falcoctl:0.11.0": false, "falcosecurity/falco-driver-loader:0.41.0": false,
		"falco:5000/foo:1": false, "falco/agent:1": false, "x/y:falco": false, "x/my-falco:1": false, "": false,
	} {
		if got := expression.MatchString(image); got != want {
			t.Errorf("the API server takes %q for Falco: %t", image, got)
		}
		if got := falco.Is("x", image); got != want {
			t.Errorf("the webhook takes %q for Falco: %t", image, got)
		}
	}
	if !strings.Contains(conditions[len(conditions)-1].Expression, "c.name == 'falco'") || !falco.Is("falco", "x") {
		t.Error("a container named falco is not taken for Falco by both")
	}
}

// TestTestOfTheWebhook stands where the webhook sees the release's namespace for
// sure, with the right to create pods there, which goes when the tests have ended.
func TestTestOfTheWebhook(t *testing.T) {
	const name = "metawire-test-webhook"
	_, objs := mustRender(t, loadChart(t), "")
	rights := func(objs []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
		found := map[string]*unstructured.Unstructured{}
		for _, o := range objs {
			if o.GetName() == name {
				found[o.GetKind()] = o
			}
		}
		return found
	}
	found := rights(objs)
	for _, kind := range []string{"Role", "RoleBinding", "ServiceAccount"} {
		if found[kind] == nil {
			t.Fatalf("there is no %s", kind)
		}
		a := found[kind].GetAnnotations()
		if a["helm.sh/hook"] != "test" || a["helm.sh/hook-delete-policy"] != "before-hook-creation,hook-succeeded,hook-failed" || a["helm.sh/hook-weight"] != "-1" {
			t.Errorf("%s: %v", kind, a)
		}
	}
	for _, values := range []string{"webhook: {enabled: false}", "webhook: {namespaceSelector: {matchLabels: {a: b}}}"} {
		_, objs := mustRender(t, loadChart(t), values)
		if found := rights(objs); len(found) > 0 {
			t.Errorf("with %s there is %v", values, found)
		}
	}
}
