package inject_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

const fragment = "config_files[]=" + wiring.FragmentFile

// ca is a PEM block; what is in it does not matter here.
const ca = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"

func settings() inject.Settings {
	return inject.Settings{
		Version: "1.2.3", Host: "metawire-collector.metawire.svc", Port: 45000, Addresses: []string{"10.96.0.9", "fd00::9"},
		CA: []byte(ca), Image: "ghcr.io/metawire/metawire:1.2.3", ImagePullPolicy: corev1.PullIfNotPresent,
		ImagePullSecrets: []string{"pull"}, Plugin: wiring.Plugin{Source: wiring.PluginRegistry, Reference: "ghcr.io/x/k8smeta"},
	}
}

// stock is a pod as Falco's own chart makes it.
func stock() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "falco-", Namespace: "falco", Labels: map[string]string{"app.kubernetes.io/name": "falco"}},
		Spec: corev1.PodSpec{
			DNSPolicy:      corev1.DNSClusterFirst,
			InitContainers: []corev1.Container{{Name: "falcoctl-artifact-install", Image: "falcosecurity/falcoctl:0.11.4"}},
			Containers: []corev1.Container{{
				Name: "falco", Image: "docker.io/falcosecurity/falco:0.43.1", Args: []string{"/usr/bin/falco"},
				Env: []corev1.EnvVar{
					{Name: "HOST_ROOT", Value: "/host"},
					{Name: "FALCO_K8S_NODE_NAME", ValueFrom: nodeName()},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "root-falco-fs", MountPath: "/root/.falco"},
					{Name: "rules", MountPath: "/etc/falco"},
					{Name: "config", MountPath: "/etc/falco/falco.yaml", SubPath: "falco.yaml"},
					{Name: "plugins", MountPath: "/usr/share/falco/plugins"},
					{Name: "proc", MountPath: "/host/proc"},
					{Name: "dev", MountPath: "/host/dev", ReadOnly: true},
				},
			}},
			Volumes: []corev1.Volume{{Name: "config"}, {Name: "rules"}, {Name: "root-falco-fs"}, {Name: "plugins"}, {Name: "proc"}, {Name: "dev"}},
		},
	}
}

func nodeName() *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}
}

// decided is what a case is about.
type decided struct {
	Outcome wiring.Outcome
	Code    inject.Code
}

var wired = decided{wiring.Wired, inject.Done}

func left(c inject.Code) decided   { return decided{wiring.StoodDown, c} }
func cannot(c inject.Code) decided { return decided{wiring.NotWired, c} }

// falco is the container of a stock pod.
func falco(p *corev1.Pod) *corev1.Container { return &p.Spec.Containers[0] }

// decision is a case: a stock pod with a change.
type decision struct {
	change func(*corev1.Pod, *inject.Settings)
	want   decided
	shows  func(*corev1.Pod) (got, want any) // nil: nothing special
}

func decide(t *testing.T, cases map[string]decision) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod, s := stock(), settings()
			if c.change != nil {
				c.change(pod, &s)
			}
			given := pod.DeepCopy()
			got, d := inject.Pod(pod, s)
			if diff := cmp.Diff(c.want, decided{d.Outcome, d.Code}); diff != "" {
				t.Fatalf("%s\n%s", d.Reason, diff)
			}
			if diff := cmp.Diff(given, pod); diff != "" {
				t.Errorf("the input has changed: %s", diff)
			}
			status, err := wiring.ParseStatus(got.Annotations[wiring.StatusAnnotation])
			if err != nil || status.Outcome != d.Outcome || status.Reason != d.Reason || status.Version != "1.2.3" {
				t.Errorf("status %+v, %v does not tell of %+v", status, err, d)
			}
			if c.shows != nil {
				got, want := c.shows(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
			holds(t, given, got, d, s)
		})
	}
}

// ours is the init container that was added.
func ours(p *corev1.Pod) corev1.Container {
	return p.Spec.InitContainers[len(p.Spec.InitContainers)-1]
}

// task is what the init container is told, as Kubernetes hands it on.
func task(p *corev1.Pod) (t wiring.Task) {
	if err := json.Unmarshal([]byte(strings.ReplaceAll(ours(p).Env[0].Value, "$$(", "$(")), &t); err != nil {
		return wiring.Task{NodeVariable: err.Error()}
	}
	return t
}

func paths(mounts []corev1.VolumeMount) (all []string) {
	for _, m := range mounts {
		all = append(all, m.MountPath)
	}
	return all
}
