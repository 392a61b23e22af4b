package check

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRunning: a pod of an image that no Deployment has is told, and nothing is made
// of containers that others put beside the daemons, nor of a registry's mirror.
func TestRunning(t *testing.T) {
	pod := func(images ...string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
		for i, image := range images {
			name := []string{"collector", "istio-proxy"}[i]
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: image})
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, ImageID: "id of " + image})
		}
		return p
	}
	const ours, proxy = "ghcr.io/metawire/metawire:0.1.0", "istio/proxyv2:1.26"
	for name, tc := range map[string]struct {
		pods   []corev1.Pod
		stale  int
		builds int
	}{
		"as it should be":        {[]corev1.Pod{pod(ours), pod(ours)}, 0, 1},
		"a sidecar":              {[]corev1.Pod{pod(ours, proxy)}, 0, 1},
		"a mirror":               {[]corev1.Pod{pod("mirror.example/metawire/metawire:0.1.0")}, 0, 1},
		"of before":              {[]corev1.Pod{pod(ours), pod("ghcr.io/metawire/metawire:0.0.1")}, 1, 2},
		"of before, and sidecar": {[]corev1.Pod{pod("ghcr.io/metawire/metawire:0.0.1", proxy)}, 1, 1},
	} {
		stale, builds := running(tc.pods, map[string][]string{ours: {"Deployment"}}, map[string]bool{"collector": true})
		if len(stale) != tc.stale || builds != tc.builds {
			t.Errorf("%s: got %q and %d builds, want %d and %d", name, stale, builds, tc.stale, tc.builds)
		}
	}
}

// TestIsOther: a build that nobody released is of no version.
func TestIsOther(t *testing.T) {
	for _, tc := range []struct {
		is, than string
		want     bool
	}{{"0.1.0", "0.1.0", false}, {"v0.1.0", "0.1.0", false}, {"0.1.0", "0.2.0", true}, {"dev", "0.2.0", false}, {"0.1.0", "dev", false}} {
		if got := isOther(tc.is, tc.than); got != tc.want {
			t.Errorf("%s and %s: got %t", tc.is, tc.than, got)
		}
	}
}
