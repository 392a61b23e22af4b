package chart_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
)

// TestOverlaid: what the values say of security contexts and of probes is laid
// over the chart's own, for the collectors and for the inventory's CronJob.
func TestOverlaid(t *testing.T) {
	ch := loadChart(t)
	_, objs := mustRender(t, ch, `
clusterID: c
inventory: {enabled: true, endpoint: "https://e", mode: CronJob, schedule: "* * * * *"}
collector:
  podSecurityContext: {runAsUser: null, fsGroup: 5}
  containerSecurityContext: {capabilities: {add: [NET_BIND_SERVICE]}}
  livenessProbe: {initialDelaySeconds: 90}
  readinessProbe: {periodSeconds: 7}
`)
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	c, err := find[batchv1.CronJob](objs, "CronJob", "metawire-inventory")
	if err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]corev1.PodSpec{"collector": d.Spec.Template.Spec, "inventory": c.Spec.JobTemplate.Spec.Template.Spec} {
		pod := &corev1.PodSecurityContext{
			RunAsNonRoot: ptr.To(true), RunAsGroup: ptr.To[int64](65532), FSGroup: ptr.To[int64](5),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
		if diff := cmp.Diff(pod, spec.SecurityContext); diff != "" {
			t.Errorf("%s: pod (-want +got):\n%s", name, diff)
		}
		container := &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		}
		if diff := cmp.Diff(container, spec.Containers[0].SecurityContext); diff != "" {
			t.Errorf("%s: container (-want +got):\n%s", name, diff)
		}
	}
	collector := d.Spec.Template.Spec.Containers[0]
	if p := collector.LivenessProbe; p.InitialDelaySeconds != 90 || p.PeriodSeconds != 10 || p.HTTPGet.Path != "/healthz" {
		t.Errorf("liveness: %+v", p)
	}
	if p := collector.ReadinessProbe; p.InitialDelaySeconds != 6 || p.PeriodSeconds != 7 || p.HTTPGet.Path != "/readyz" {
		t.Errorf("readiness: %+v", p)
	}
}

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
		if s.Labels["app.kubernetes.io/name"] != "metawire" || s.Labels["app.kubernetes.io/instance"] != "metawire" || !hasPort(s, "metrics") {
			t.Errorf("Service %s is not selected, or has no such port: %v, %v", name, s.Labels, s.Spec.Ports)
		}
	}
}

func hasPort(s *corev1.Service, name string) bool {
	for _, p := range s.Spec.Ports {
		if p.Name == name {
			return true
		}
	}
	return false
}

func ofKind(objs []*unstructured.Unstructured, kind string) (all []*unstructured.Unstructured) {
	for _, o := range objs {
		if o.GetKind() == kind {
			all = append(all, o)
		}
	}
	return all
}
