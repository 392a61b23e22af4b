package check

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/subscription"
	"github.com/metawire/metawire/internal/wiring"
)

// wiredFalco is one that is wired and has run for so long.
func wiredFalco(uid string, ran time.Duration) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "falco", Name: "falco-" + uid, UID: types.UID(uid), Annotations: map[string]string{
			wiring.StatusAnnotation: wiring.Status{Outcome: wiring.Wired, CAs: []string{"a"}}.String(),
		}},
		Spec: corev1.PodSpec{NodeName: "node-" + uid, Containers: []corev1.Container{{Name: "falco"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			InitContainerStatuses: []corev1.ContainerStatus{{Name: wiring.InitContainer, State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{Message: wiring.Verdict{Wired: true, Ticket: true}.String()},
			}}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "falco", State: corev1.ContainerState{
				Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now().Add(-ran))},
			}}},
		},
	}
}

// TestSubscribers: a wired Falco that does not subscribe, or is refused, is named;
// whoever else is refused is not a fault of the installation.
func TestSubscribers(t *testing.T) {
	subscribes := func(uids ...string) installation.Replica {
		r := &subscription.ListResponse{}
		for _, uid := range uids {
			r.Subscribers = append(r.Subscribers, &subscription.Subscriber{Node: "node-" + uid, Pod: &subscription.Pod{Uid: uid}})
		}
		return installation.Replica{Pod: "c", Told: r}
	}
	refuses := func(uid, name string, ago time.Duration, served bool) installation.Replica {
		r := subscribes("1")
		f := &subscription.Refusal{Node: "node-9", Address: "10.0.0.9", Code: "other_node", Reason: "it is on another node", Last: now().Add(-ago).Format(time.RFC3339), Times: 3, Served: served}
		if uid != "" {
			f.Pod = &subscription.Pod{Uid: uid, Namespace: "falco", Name: name}
		}
		r.Told.Refusals = append(r.Told.Refusals, f)
		return r
	}
	nameless := func(by string) installation.Replica {
		return installation.Replica{Pod: "c", Told: &subscription.ListResponse{Subscribers: []*subscription.Subscriber{{Node: "node-1", By: by}}}}
	}
	silent := installation.Replica{Pod: "mute", Err: errors.New("no answer")}
	one, two, young := wiredFalco("1", time.Hour), wiredFalco("2", time.Hour), wiredFalco("3", time.Second)
	beside := wiredFalco("9", time.Hour)
	beside.Spec.NodeName = "node-1"
	for name, tc := range map[string]struct {
		pods     []corev1.Pod
		replicas told
		outcome  Outcome
		says     string
	}{
		"all subscribe":              {[]corev1.Pod{one, two}, told{subscribes("1"), subscribes("2")}, OK, "collector c: 1 subscribers of 1 nodes"},
		"one does not":               {[]corev1.Pod{one, two}, told{subscribes("1"), subscribes()}, Failed, "falco/falco-2 on node node-2 is wired, and no collector has it"},
		"one has no name":            {[]corev1.Pod{one}, told{nameless("nodeAddress")}, OK, ""},
		"two of a node, one stream":  {[]corev1.Pod{one, beside}, told{nameless("nodeAddress")}, Failed, "on node node-1 is wired, and no collector has it"},
		"nobody is asked":            {[]corev1.Pod{one}, told{nameless("nothing")}, OK, ""},
		"a person looks on":          {[]corev1.Pod{one}, told{nameless("token")}, Failed, "falco/falco-1 on node node-1 is wired, and no collector has it"},
		"one has just started":       {[]corev1.Pod{one, young}, told{subscribes("1")}, OK, ""},
		"one collector is silent":    {[]corev1.Pod{one, two}, told{subscribes("1"), silent}, Warning, "collector mute does not say who subscribes: no answer"},
		"all are silent":             {[]corev1.Pod{one}, told{silent}, Failed, "no answer"},
		"a Falco is refused":         {[]corev1.Pod{one, young}, told{refuses("3", "falco-3", time.Minute, false)}, Failed, "pod falco/falco-3 (10.0.0.9) was refused node node-9, 3 times, the last 1m0s ago: it is on another node (other_node)"},
		"it was, long ago":           {[]corev1.Pod{one, young}, told{refuses("3", "falco-3", time.Hour, false)}, OK, ""},
		"it subscribes meanwhile":    {[]corev1.Pod{one}, told{refuses("1", "falco-1", time.Minute, false)}, OK, ""},
		"it would be":                {[]corev1.Pod{one}, told{refuses("1", "falco-1", time.Minute, true)}, Warning, "would be refused"},
		"somebody is, who may be":    {[]corev1.Pod{one}, told{refuses("", "", time.Minute, false)}, Warning, "somebody at 10.0.0.9 was refused"},
		"another pod is, as it must": {[]corev1.Pod{one}, told{refuses("8", "thief", time.Minute, false)}, OK, "pod falco/thief"},
	} {
		t.Run(name, func(t *testing.T) {
			f := tc.replicas.judge(tc.pods, now(), now().Add(-time.Hour))
			if f.outcome != tc.outcome || !strings.Contains(strings.Join(f.details, "\n"), tc.says) {
				t.Errorf("got %+v", f)
			}
			if (f.hint == "") != (f.outcome == OK) {
				t.Errorf("%s, and the hint is %q", f.outcome, f.hint)
			}
			if f := tc.replicas.judge(tc.pods, now(), now().Add(-20*time.Second)); (f.outcome == Failed) != (tc.outcome == Failed && !strings.Contains(tc.says, "no collector has it")) {
				t.Errorf("who is lost is not waited for, or who is refused is, 20 s after the collectors came: %+v", f)
			}
		})
	}
}
