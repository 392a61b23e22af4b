package chart_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
)

// TestOverlaid: what the values say of security contexts and of probes is laid
// over the chart's own, be it false, 0 or null; for the collectors and for the
// pods that go where they do.
func TestOverlaid(t *testing.T) {
	ch := loadChart(t)
	files, objs := mustRender(t, ch, `
clusterID: c
inventory: {enabled: true, endpoint: "https://e", mode: CronJob, schedule: "* * * * *"}
collector:
  podSecurityContext: {runAsNonRoot: false, runAsUser: null, runAsGroup: 1000620000, fsGroup: 0, seccompProfile: {type: null, localhostProfile: a}}
  containerSecurityContext: {readOnlyRootFilesystem: false, allowPrivilegeEscalation: null, capabilities: {add: [NET_BIND_SERVICE]}}
  livenessProbe: {initialDelaySeconds: 90}
  readinessProbe: {initialDelaySeconds: 0, periodSeconds: 7}
webhook:
  livenessProbe: {initialDelaySeconds: 90}
  readinessProbe: {periodSeconds: 7}
`)
	for name, text := range files {
		if strings.Contains(text, "null") {
			t.Errorf("%s has a null:\n%s", name, text)
		}
	}
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	c, err := find[batchv1.CronJob](objs, "CronJob", "metawire-inventory")
	if err != nil {
		t.Fatal(err)
	}
	specs := map[string]corev1.PodSpec{"metawire-collector": d.Spec.Template.Spec, "metawire-inventory": c.Spec.JobTemplate.Spec.Template.Spec}
	for _, name := range []string{"metawire-test-rights", "metawire-test-stream", "metawire-test-webhook", "metawire-test-inventory"} {
		p, err := find[corev1.Pod](objs, "Pod", name)
		if err != nil {
			t.Fatal(err)
		}
		specs[name] = p.Spec
	}
	for name, spec := range specs {
		pod := &corev1.PodSecurityContext{
			RunAsNonRoot: ptr.To(false), RunAsGroup: ptr.To[int64](1000620000), FSGroup: ptr.To[int64](0),
			SeccompProfile: &corev1.SeccompProfile{LocalhostProfile: ptr.To("a")},
		}
		if diff := cmp.Diff(pod, spec.SecurityContext); diff != "" {
			t.Errorf("%s: pod (-want +got):\n%s", name, diff)
		}
		container := &corev1.SecurityContext{
			ReadOnlyRootFilesystem: ptr.To(false),
			Capabilities:           &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		}
		if diff := cmp.Diff(container, spec.Containers[0].SecurityContext); diff != "" {
			t.Errorf("%s: container (-want +got):\n%s", name, diff)
		}
	}
	for _, name := range []string{"collector", "webhook"} {
		c := daemon(t, objs, name).Spec.Template.Spec.Containers[0]
		if p := c.LivenessProbe; p.InitialDelaySeconds != 90 || p.PeriodSeconds != 10 || p.HTTPGet.Path != "/healthz" {
			t.Errorf("%s: liveness: %+v", name, p)
		}
		if p := c.ReadinessProbe; p.InitialDelaySeconds != 0 || p.PeriodSeconds != 7 || p.HTTPGet.Path != "/readyz" {
			t.Errorf("%s: readiness: %+v", name, p)
		}
	}
}

func ofKind(objs []*unstructured.Unstructured, kind string) (all []*unstructured.Unstructured) {
	for _, o := range objs {
		if o.GetKind() == kind {
			all = append(all, o)
		}
	}
	return all
}
