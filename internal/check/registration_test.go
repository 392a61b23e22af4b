package check

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMisses(t *testing.T) {
	namespaces := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}}}}
	hook := func(change func(*admissionv1.MutatingWebhook)) *admissionv1.MutatingWebhook {
		h := &admissionv1.MutatingWebhook{Name: "h", NamespaceSelector: namespaces.DeepCopy(), ObjectSelector: &metav1.LabelSelector{}, Rules: []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}}}
		change(h)
		return h
	}
	for name, tc := range map[string]struct {
		change func(*admissionv1.MutatingWebhook)
		says   string
	}{
		"well":            {func(*admissionv1.MutatingWebhook) {}, ""},
		"everything":      {func(h *admissionv1.MutatingWebhook) { h.Rules[0].Resources = []string{"*"} }, ""},
		"other resources": {func(h *admissionv1.MutatingWebhook) { h.Rules[0].Resources = []string{"services"} }, "not called when pods are created: its rules are [CREATE] of [services] in the API groups [\"\"]"},
		"other operations": {func(h *admissionv1.MutatingWebhook) {
			h.Rules[0].Operations = []admissionv1.OperationType{admissionv1.Delete}
		}, "not called when pods are created"},
		"some pods": {func(h *admissionv1.MutatingWebhook) { h.ObjectSelector.MatchLabels = map[string]string{"a": "b"} }, "only pods with a=b"},
	} {
		got := strings.Join(misses(hook(tc.change)), "\n")
		if !strings.Contains(got, tc.says) || (got == "") != (tc.says == "") {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestOtherNamespaces: what another selector sees is judged by the namespaces that
// there are, for parts of some clusters add to it.
func TestOtherNamespaces(t *testing.T) {
	notX := metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}}
	all := []corev1.Namespace{
		{ObjectMeta: metav1.ObjectMeta{Name: "falco", Labels: map[string]string{"team": "sec"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Labels: map[string]string{"control-plane": "true"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "out", Labels: map[string]string{"a": "x"}}},
	}
	for name, tc := range map[string]struct {
		selector metav1.LabelSelector
		says     string
		loses    bool
	}{
		"the same":          {metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{notX}}, "", false},
		"of AKS":            {metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{notX, {Key: "control-plane", Operator: metav1.LabelSelectorOpDoesNotExist}}}, "sees namespaces with a notin (x),!control-plane", false},
		"all":               {metav1.LabelSelector{}, "the release is for those with a notin (x)", false},
		"without Falco's":   {metav1.LabelSelector{MatchLabels: map[string]string{"team": "none"}}, "it does not see falco", true},
		"that cannot be so": {metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "x"}}}, "namespaceSelector: ", true},
	} {
		h := &admissionv1.MutatingWebhook{Name: "h", NamespaceSelector: &tc.selector}
		got, loses := otherNamespaces(h, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{notX}}, all)
		if !strings.Contains(got, tc.says) || (got == "") != (tc.says == "") || loses != tc.loses {
			t.Errorf("%s: got %q, %t", name, got, loses)
		}
	}
}

// TestUnmet: the chart's own conditions are met by a Falco pod; see the e2e test for
// those that stand there.
func TestUnmet(t *testing.T) {
	for expression, says := range map[string]string{
		"true": "",
		"object.metadata.?annotations[?'metawire.dev/inject'].orValue('') != 'false'":                             "",
		"object.spec.?containers.orValue([]).exists(c, c.name == 'falco' || c.?image.orValue('').matches('^x$'))": "",
		"false": "its matchCondition c (false) is not so for one",
		"object.metadata.?annotations[?'metawire.dev/inject'].orValue('') == 'true'": "is not so for one",
		"object.metadata.labels.team == 'a'":                                         "", // of a pod that is made up
		"object.metadata.namespace == 'falco'":                                       "",
		"request.namespace == 'falco'":                                               "",
		"request.namespace == 'sec'":                                                 "a Falco pod in namespace falco: its matchCondition c (request.namespace == 'sec') is not so",
		"request.userInfo.username == 'a'":                                           "", // not to be known here
		"authorizer.group('').resource('pods').check('get').allowed()":               "",
		"'a'": "is not so for one",
	} {
		h := &admissionv1.MutatingWebhook{Name: "h", MatchConditions: []admissionv1.MatchCondition{{Name: "c", Expression: expression}}}
		got := strings.Join(unmet(h, "falco", nil), "\n")
		if !strings.Contains(got, says) || (got == "") != (says == "") {
			t.Errorf("%s: got %q", expression, got)
		}
	}
}

// TestUnmetByPods: what a condition says of labels is judged by a Falco that there is.
func TestUnmetByPods(t *testing.T) {
	h := &admissionv1.MutatingWebhook{Name: "h", MatchConditions: []admissionv1.MatchCondition{{Name: "c", Expression: "object.metadata.labels.team == 'a'"}}}
	for team, says := range map[string]string{"a": "", "b": "is not so for one", "": "fails: no such key"} {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "falco", Name: "f"}}
		if team != "" {
			p.Labels = map[string]string{"team": team}
		}
		got := strings.Join(unmet(h, "falco", []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "falco", Annotations: map[string]string{"metawire.dev/inject": "false"}}}, p}), "\n")
		if !strings.Contains(got, says) || (got == "") != (says == "") {
			t.Errorf("team %q: got %q", team, got)
		}
	}
}
