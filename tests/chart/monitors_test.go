package chart_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

// TestServiceMonitor: it selects the Services of both daemons, and each has the
// port that it names.
func TestServiceMonitor(t *testing.T) {
	ch := loadChart(t)
	if _, objs := mustRender(t, ch, ``); len(ofKind(objs, "ServiceMonitor")) > 0 {
		t.Error("there is one although nobody asked for it")
	}
	_, objs := mustRender(t, ch, `
monitoring:
  serviceMonitor:
    enabled: true
    labels: {release: prometheus, app.kubernetes.io/name: mine}
    interval: 15s
    scrapeTimeout: 5s
    targetLabels: [team]
    relabelings: [{action: labeldrop, regex: pod}]
`)
	all := ofKind(objs, "ServiceMonitor")
	if len(all) != 1 {
		t.Fatalf("want one ServiceMonitor, got %d", len(all))
	}
	m := all[0]
	if l := m.GetLabels(); l["release"] != "prometheus" || l["app.kubernetes.io/name"] != "metawire" {
		t.Errorf("labels %v: the user's count, but not over the chart's", l)
	}
	spec := map[string]any{
		"selector":     map[string]any{"matchLabels": map[string]any{"app.kubernetes.io/name": "metawire", "app.kubernetes.io/instance": "metawire"}},
		"targetLabels": []any{"team"},
		"endpoints": []any{map[string]any{
			"port": "metrics", "interval": "15s", "scrapeTimeout": "5s", "relabelings": []any{map[string]any{"action": "labeldrop", "regex": "pod"}},
		}},
	}
	if diff := cmp.Diff(spec, m.Object["spec"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{"metawire-collector", "metawire-webhook"} {
		s, err := find[corev1.Service](objs, "Service", name)
		if err != nil {
			t.Fatal(err)
		}
		if s.Labels["app.kubernetes.io/name"] != "metawire" || s.Labels["app.kubernetes.io/instance"] != "metawire" || !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == "metrics" }) {
			t.Errorf("Service %s is not selected, or has no such port: %v, %v", name, s.Labels, s.Spec.Ports)
		}
	}
}

// TestServiceMonitorElsewhere: in another namespace it names that of the
// Services.
func TestServiceMonitorElsewhere(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), "monitoring: {serviceMonitor: {enabled: true, namespace: monitoring}}")
	m := ofKind(objs, "ServiceMonitor")[0]
	spec, _ := m.Object["spec"].(map[string]any)
	want := map[string]any{"matchNames": []any{"metawire"}}
	if d := cmp.Diff(want, spec["namespaceSelector"]); d != "" || m.GetNamespace() != "monitoring" {
		t.Errorf("namespace %s, selector (-want +got):\n%s", m.GetNamespace(), d)
	}
}

// TestPodMonitor: it selects the pods of both daemons, each of which has the port
// that it names, and no other pod does; and the targets' job is that which alerts
// and dashboard select, whoever relabels more.
func TestPodMonitor(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), `
monitoring:
  podMonitor:
    enabled: true
    namespace: monitoring
    interval: 15s
    podTargetLabels: [team]
    relabelings: [{action: labeldrop, regex: pod}]
`)
	all := ofKind(objs, "PodMonitor")
	if len(all) != 1 || len(ofKind(objs, "ServiceMonitor")) > 0 {
		t.Fatalf("want one PodMonitor, got %d, and no ServiceMonitor", len(all))
	}
	var spec struct {
		Selector          metav1.LabelSelector
		NamespaceSelector struct{ MatchNames []string }
		PodTargetLabels   []string
		Endpoints         []struct {
			Port, Interval string
			Relabelings    []struct {
				Action, TargetLabel, Replacement, Regex string
				SourceLabels                            model.LabelNames
			}
		} `json:"podMetricsEndpoints"`
	}
	text, err := sigsyaml.Marshal(all[0].Object["spec"])
	if err == nil {
		err = sigsyaml.UnmarshalStrict(text, &spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	if all[0].GetNamespace() != "monitoring" || !slices.Equal(spec.NamespaceSelector.MatchNames, []string{namespace}) || !slices.Equal(spec.PodTargetLabels, []string{"team"}) ||
		len(spec.Endpoints) != 1 || spec.Endpoints[0].Port != "metrics" || spec.Endpoints[0].Interval != "15s" || len(spec.Endpoints[0].Relabelings) != 2 {
		t.Fatalf("%s: %+v", all[0].GetNamespace(), spec)
	}
	for _, name := range []string{"collector", "webhook"} {
		pod := daemon(t, objs, name).Spec.Template
		for key, value := range spec.Selector.MatchLabels {
			if pod.Labels[key] != value {
				t.Errorf("%s: its pods are not selected: %v", name, pod.Labels)
			}
		}
		if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" }) {
			t.Errorf("%s: no port metrics", name)
		}
		found := promlabels.FromStrings("job", "monitoring/metawire", "pod", "x", "__meta_kubernetes_pod_label_app_kubernetes_io_component", pod.Labels["app.kubernetes.io/component"])
		for _, r := range spec.Endpoints[0].Relabelings {
			c := relabel.DefaultRelabelConfig
			c.Action, c.SourceLabels, c.TargetLabel, c.NameValidationScheme = relabel.Action(r.Action), r.SourceLabels, r.TargetLabel, model.UTF8Validation
			if r.Replacement != "" {
				c.Replacement = r.Replacement
			}
			if r.Regex != "" {
				c.Regex = relabel.MustNewRegexp(r.Regex)
			}
			found, _ = relabel.Process(found, &c)
		}
		if found.Get("job") != "metawire-"+name || found.Has("pod") {
			t.Errorf("%s: the target's labels are %s", name, found)
		}
	}
}
