package check

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/wiring"
)

// TestBroken: a Falco that is wired and does not start is told of; one that is about
// to start is not, and of one that we left alone somebody else tells.
func TestBroken(t *testing.T) {
	waits := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "so it is"}}
	}
	for name, tc := range map[string]struct {
		container string
		state     corev1.ContainerState
		judged    wiring.State
		says      string
	}{
		"its image":         {"falco", waits("ErrImagePull"), wiring.StateWired, "it is wired, and Falco does not run: ErrImagePull: image : so it is. check Falco's own image"},
		"its command":       {"falco", waits("CreateContainerError"), wiring.StateNoTicket, "CreateContainerError: so it is. kubectl -n ns describe pod p"},
		"about to start":    {"falco", waits("ContainerCreating"), wiring.StateWired, ""},
		"it runs":           {"falco", corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, wiring.StateWired, ""},
		"opted out":         {"falco", waits("ErrImagePull"), wiring.StateOptedOut, ""},
		"another container": {"sidecar", waits("ErrImagePull"), wiring.StateWired, ""},
	} {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "falco"}, {Name: "sidecar"}}},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: tc.container, State: tc.state}}},
		}
		if got := (&Target{}).broken(t.Context(), p, tc.judged); got != tc.says && (tc.says == "" || !strings.Contains(got, tc.says)) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestUnpulled(t *testing.T) {
	pod := func(name, reason string) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{
			Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "no such image"}},
		}}}}
	}
	if got := unpulled(pod(wiring.InitContainer, "ErrImagePull")); !strings.Contains(got, "no such image") || !strings.Contains(got, "webhook.imagePullSecrets") {
		t.Errorf("got %q", got)
	}
	for _, p := range []*corev1.Pod{pod("other", "ErrImagePull"), pod(wiring.InitContainer, "PodInitializing"), {}} {
		if got := unpulled(p); got != "" {
			t.Errorf("got %q", got)
		}
	}
}
