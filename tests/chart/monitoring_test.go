package chart_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestDashboard: the ConfigMap holds the dashboard of grafana/, as it is, under
// the label by which Grafana's sidecar finds it.
func TestDashboard(t *testing.T) {
	ch := loadChart(t)
	if _, objs := mustRender(t, ch, ""); len(ofKind(objs, "ConfigMap")) != 2 {
		t.Error("there is a dashboard although nobody asked for it")
	}
	want, err := os.ReadFile("../../grafana/metawire.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		values, namespace string
		label, value      string
		annotations       map[string]string
	}{
		{"{enabled: true}", "metawire", "grafana_dashboard", "1", nil},
		{`{enabled: true, namespace: grafana, labels: {grafana_dashboard: null, dashboards: "yes"}, annotations: {grafana_folder: Security}}`, "grafana", "dashboards", "yes", map[string]string{"grafana_folder": "Security"}},
		{"{enabled: true, labels: {app.kubernetes.io/name: mine}}", "metawire", "app.kubernetes.io/name", "metawire", nil},
	} {
		_, objs := mustRender(t, ch, "monitoring: {dashboard: "+tc.values+"}")
		m, err := find[corev1.ConfigMap](objs, "ConfigMap", "metawire-dashboard")
		if err != nil {
			t.Fatal(err)
		}
		if m.Namespace != tc.namespace || m.Labels[tc.label] != tc.value || !cmp.Equal(m.Annotations, tc.annotations) {
			t.Errorf("%s: namespace %s, labels %v, annotations %v", tc.values, m.Namespace, m.Labels, m.Annotations)
		}
		if _, ok := m.Labels["grafana_dashboard"]; ok && tc.label == "dashboards" {
			t.Errorf("%s: the label is still there", tc.values)
		}
		var compact, wanted bytes.Buffer
		if err := json.Compact(&compact, []byte(m.Data["metawire.json"])); err != nil {
			t.Fatal(err)
		}
		if err := json.Compact(&wanted, want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(compact.Bytes(), wanted.Bytes()) {
			t.Error("another dashboard")
		}
	}
}

// TestRuleValues: what the values of the PrometheusRule do to it.
func TestRuleValues(t *testing.T) {
	alerts := func(values string) map[string]rule {
		t.Helper()
		_, rules := rulesOf(t, values)
		all := map[string]rule{}
		for _, r := range rules {
			all[r.Alert] = r
		}
		return all
	}
	all := alerts("monitoring: {prometheusRule: {enabled: true}}")
	if _, ok := all["MetawireInventoryOld"]; ok {
		t.Error("alerts of an inventory that is not enabled")
	}
	for _, tc := range []struct{ values, without, with string }{
		{"monitoring: {prometheusRule: {enabled: true, disabled: [MetawireLegacySubscribers]}}", "MetawireLegacySubscribers", "MetawireSubscribersRefused"},
		{"{webhook: {enabled: false}, monitoring: {prometheusRule: {enabled: true}}}", "MetawireWebhooksDown", "MetawireCollectorsDown"},
		{"{webhook: {enabled: false}, monitoring: {prometheusRule: {enabled: true}}}", "MetawireFalcoPodsUnwired", "MetawireCertificateExpires"},
		{alertsOfJobs, "MetawireInventoryFailed", "MetawireInventoryOld"},
	} {
		got := alerts(tc.values)
		if _, ok := got[tc.without]; ok {
			t.Errorf("%s: %s is there", tc.values, tc.without)
		}
		if _, ok := got[tc.with]; !ok {
			t.Errorf("%s: %s is not there", tc.values, tc.with)
		}
	}
	got := alerts(`{collector: {replicas: 5}, monitoring: {prometheusRule: {enabled: true, alertLabels: {team: security, severity: page}, runbookURL: "https://runbooks.example/m/"}}}`)
	r := got["MetawireCollectorsTooFew"]
	if d := cmp.Diff(map[string]string{"team": "security", "severity": "page", "namespace": "metawire", "release": "metawire"}, r.Labels); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if r.Annotations["runbook_url"] != "https://runbooks.example/m/MetawireCollectorsTooFew.md" {
		t.Errorf("runbook_url %s", r.Annotations["runbook_url"])
	}
	if want := `(sum(metawire_collector_ready{namespace="metawire",job="metawire-collector"}) or vector(0)) < 5`; r.Expr != want {
		t.Errorf("expression %s, want %s", r.Expr, want)
	}
}
