package chart_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func daemon(t *testing.T, objs []*unstructured.Unstructured, name string) *appsv1.Deployment {
	t.Helper()
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-"+name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPodsTakeWhatUsersAdd: the same values mean the same for both daemons, and
// for the CronJob's pods those of the collector do.
func TestPodsTakeWhatUsersAdd(t *testing.T) {
	const added = `{
		extraArgs: [--b, c], extraEnv: [{name: A, value: b}], extraVolumes: [{name: extra, emptyDir: {}}], extraVolumeMounts: [{name: extra, mountPath: /extra}],
		dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1]}, priorityClassName: high, nodeSelector: {disk: ssd},
		tolerations: [{operator: Exists}], affinity: {nodeAffinity: {}}, podAnnotations: {a: b},
		podSecurityContext: {runAsUser: null, fsGroup: 7}, containerSecurityContext: {readOnlyRootFilesystem: false}}`
	values := shipping(`mode: CronJob, schedule: "@daily", proxy: {url: "http://proxy"}`, "collector: "+added, "webhook: "+added)
	_, objs := mustRender(t, loadChart(t), values)
	c, err := find[batchv1.CronJob](objs, "CronJob", "metawire-inventory")
	if err != nil {
		t.Fatal(err)
	}
	for name, pod := range map[string]corev1.PodTemplateSpec{
		"collector": daemon(t, objs, "collector").Spec.Template, "webhook": daemon(t, objs, "webhook").Spec.Template, "inventory": c.Spec.JobTemplate.Spec.Template,
	} {
		spec, container := pod.Spec, pod.Spec.Containers[0]
		got := []any{
			container.Args[len(container.Args)-2:], container.Env[len(container.Env)-1], spec.Volumes[len(spec.Volumes)-1].Name, container.VolumeMounts[len(container.VolumeMounts)-1],
			spec.DNSPolicy, spec.DNSConfig, spec.PriorityClassName, spec.NodeSelector, spec.Tolerations, spec.Affinity, pod.Annotations["a"],
			spec.SecurityContext.RunAsUser, spec.SecurityContext.FSGroup, container.SecurityContext.ReadOnlyRootFilesystem,
		}
		want := []any{
			[]string{"--b", "c"}, corev1.EnvVar{Name: "A", Value: "b"}, "extra", corev1.VolumeMount{Name: "extra", MountPath: "/extra"},
			corev1.DNSNone, &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.1"}}, "high", map[string]string{"disk": "ssd", "kubernetes.io/os": "linux"},
			[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}}, "b",
			(*int64)(nil), ptr.To[int64](7), ptr.To(false),
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if name == "inventory" && container.Env[0].Name != "HTTPS_PROXY" {
			t.Errorf("the chart's own environment is gone: %v", container.Env)
		}
	}
}

// TestStrategy: what users say of the strategy is laid over the chart's own.
func TestStrategy(t *testing.T) {
	zero, one, half := intstr.FromInt32(0), intstr.FromInt32(1), intstr.FromString("50%")
	rolling := func(unavailable, surge intstr.IntOrString) appsv1.DeploymentStrategy {
		return appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &unavailable, MaxSurge: &surge}}
	}
	for strategy, want := range map[string]appsv1.DeploymentStrategy{
		"{}":                               rolling(zero, one),
		"{rollingUpdate: {maxSurge: 50%}}": rolling(zero, half),
		"{rollingUpdate: {maxUnavailable: 1, maxSurge: 0}}": rolling(one, zero),
		"{type: Recreate}": {Type: appsv1.RecreateDeploymentStrategyType},
	} {
		_, objs := mustRender(t, loadChart(t), fmt.Sprintf("{collector: {updateStrategy: %s}, webhook: {updateStrategy: %[1]s}}", strategy))
		for _, name := range []string{"collector", "webhook"} {
			if d := cmp.Diff(want, daemon(t, objs, name).Spec.Strategy); d != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, strategy, d)
			}
		}
	}
}

// TestSpread: users' constraints take the place of the chart's, and count the
// daemon's own pods unless they say which.
func TestSpread(t *testing.T) {
	const constraints = `[{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 1, topologyKey: rack, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {a: b}}}]`
	_, objs := mustRender(t, loadChart(t), fmt.Sprintf("{collector: {topologySpreadConstraints: %s}, webhook: {topologySpreadConstraints: %[1]s}}", constraints))
	for _, name := range []string{"collector", "webhook"} {
		d := daemon(t, objs, name)
		want := []corev1.TopologySpreadConstraint{
			{MaxSkew: 2, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: d.Spec.Selector, MatchLabelKeys: []string{"pod-template-hash"}},
			{MaxSkew: 1, TopologyKey: "rack", WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}},
		}
		if diff := cmp.Diff(want, d.Spec.Template.Spec.TopologySpreadConstraints); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestGracePeriod: the collectors have the time that they end streams over.
func TestGracePeriod(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), "")
	if got := daemon(t, objs, "collector").Spec.Template.Spec.TerminationGracePeriodSeconds; got == nil || *got != 30 {
		t.Errorf("the collectors have %v s; they need 25 and the time to end", got)
	}
}

// TestGlobal: an umbrella chart's registry and pull secrets reach every pod of
// the chart, and the init container of Falco's; the plugin's image stays yours.
func TestGlobal(t *testing.T) {
	for _, tc := range []struct{ values, want string }{
		{"", "ghcr.io/metawire/metawire:0.1.0"},
		{`global: {imageRegistry: "mirror.local:5000"}`, "mirror.local:5000/metawire/metawire:0.1.0"},
		{`global: {imageRegistry: mirror.local/all/}`, "mirror.local/all/metawire/metawire:0.1.0"},
		{`{global: {imageRegistry: mirror.local}, image: {repository: team/metawire}}`, "mirror.local/team/metawire:0.1.0"},
		{`{global: {imageRegistry: mirror.local}, image: {repository: "localhost/metawire", tag: "2"}}`, "mirror.local/metawire:2"},
		{`{global: {imageRegistry: mirror.local}, image: {repository: "reg:5000/a/b", digest: "sha256:` + strings.Repeat("0a", 32) + `"}}`, "mirror.local/a/b:0.1.0@sha256:" + strings.Repeat("0a", 32)},
	} {
		files, objs := mustRender(t, loadChart(t), tc.values)
		images := map[string]bool{}
		for _, spec := range podSpecs(t, objs) {
			images[spec.Containers[0].Image] = true
		}
		if got := slices.Collect(maps.Keys(images)); !slices.Equal(got, []string{tc.want}) {
			t.Errorf("%q: images %v, want %s", tc.values, got, tc.want)
		}
		if !strings.Contains(files["templates/webhook-configmap.yaml"], fmt.Sprintf("name: %q", tc.want)) {
			t.Errorf("%q: the webhook wires with another image:\n%s", tc.values, files["templates/webhook-configmap.yaml"])
		}
	}
	files, _ := mustRender(t, loadChart(t), `{global: {imageRegistry: mirror.local}, webhook: {plugin: {source: image, image: "reg:5000/plugins:1", path: /x.so}}}`)
	if config := files["templates/webhook-configmap.yaml"]; !strings.Contains(config, `image: "reg:5000/plugins:1"`) {
		t.Errorf("the plugin is not where webhook.plugin.image says:\n%s", config)
	}
	files, objs := mustRender(t, loadChart(t), shipping(`mode: CronJob, schedule: "@daily"`, "global: {imagePullSecrets: [theirs, {name: both}]}", "imagePullSecrets: [{name: both}, {name: own}]"))
	want := []corev1.LocalObjectReference{{Name: "theirs"}, {Name: "both"}, {Name: "own"}}
	for name, spec := range podSpecs(t, objs) {
		if d := cmp.Diff(want, spec.ImagePullSecrets); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if config := files["templates/webhook-configmap.yaml"]; !strings.Contains(config, "- \"theirs\"\n") || !strings.Contains(config, "- \"own\"\n") {
		t.Errorf("Falco's pods do not get the Secrets:\n%s", config)
	}
}

// podSpecs returns the specs of all pods that objects are or make, by kind and
// name.
func podSpecs(t *testing.T, objs []*unstructured.Unstructured) map[string]corev1.PodSpec {
	t.Helper()
	specs := map[string]corev1.PodSpec{}
	for _, o := range objs {
		pod, err := podOf(o)
		if err != nil {
			t.Fatal(err)
		}
		if o.GetKind() == "Pod" {
			pod = o
		}
		if pod == nil {
			continue
		}
		p, err := find[corev1.Pod]([]*unstructured.Unstructured{pod}, "Pod", pod.GetName())
		if err != nil {
			t.Fatal(err)
		}
		specs[o.GetKind()+" "+o.GetName()] = p.Spec
	}
	return specs
}
