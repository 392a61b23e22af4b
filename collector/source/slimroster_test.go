package source

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

var addresses = rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "fd00::1", "", "nonsense"})

// drawPod draws a pod in all that the roster needs.
func drawPod(t *rapid.T) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: drawMeta(t)}
	p.CreationTimestamp = metav1.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "created"), 0)
	if v := rapid.SampledFrom([]string{"", "true", "false", "maybe"}).Draw(t, "inject"); v != "" {
		p.Annotations[wiring.InjectAnnotation] = v
	}
	if v := rapid.SampledFrom([]string{"", "{", wiring.Status{Outcome: wiring.Wired, CAs: []string{"a", "b"}}.String()}).Draw(t, "status"); v != "" {
		p.Annotations[wiring.StatusAnnotation] = v
	}
	p.Spec.NodeName, p.Spec.HostNetwork = text.Draw(t, "node"), rapid.Bool().Draw(t, "hostNetwork")
	p.Spec.InitContainers = []corev1.Container{{Name: "falco", Image: "falco"}} // this does not make it Falco
	for range rapid.IntRange(0, 3).Draw(t, "containers") {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name:  rapid.SampledFrom([]string{"falco", "agent", "falcoctl", ""}).Draw(t, "container"),
			Image: rapid.SampledFrom([]string{"falcosecurity/falco:0.43.1", "falcosidekick:2", "falco", "nginx", ""}).Draw(t, "image"),
			Args:  []string{"falco"},
		})
	}
	p.Status.Phase = rapid.SampledFrom([]corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown}).Draw(t, "phase")
	for range rapid.IntRange(0, 2).Draw(t, "addresses") {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: addresses.Draw(t, "address")})
	}
	if len(p.Status.PodIPs) > 0 {
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
	moment := func(what string) metav1.Time {
		return metav1.Unix(rapid.Int64Range(1_700_000_000, 1_700_000_009).Draw(t, what), 0)
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodScheduled} {
		if rapid.Bool().Draw(t, string(kind)) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
				Type: kind, Status: rapid.SampledFrom([]corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse}).Draw(t, "condition"),
				LastTransitionTime: moment("transition"), LastProbeTime: moment("probe"),
			})
		}
	}
	for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"other", wiring.InitContainer, "third"}), 0, 4).Draw(t, "init containers") {
		s := corev1.ContainerStatus{Name: name, LastTerminationState: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
		switch rapid.IntRange(0, 4).Draw(t, "state of "+name) {
		case 0:
			continue
		case 1:
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: rapid.SampledFrom([]string{"ImagePullBackOff", "PodInitializing", ""}).Draw(t, "reason"), Message: "no"}
		case 2:
			s.State.Running = &corev1.ContainerStateRunning{StartedAt: moment("started")}
			s.Started = rapid.SampledFrom([]*bool{nil, new(bool), ptrTo(true)}).Draw(t, "is started")
		case 3:
			s.State.Terminated = &corev1.ContainerStateTerminated{
				Reason: "Completed", Message: text.Draw(t, "message"), StartedAt: metav1.Unix(1, 0), FinishedAt: moment("finished"),
				ExitCode: rapid.SampledFrom([]int32{0, 1}).Draw(t, "exit code"),
			}
		}
		p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, s)
	}
	return p
}

func ptrTo(b bool) *bool { return &b }

// rosterPod reads the same of a whole pod.
func rosterPod(p *corev1.Pod) roster.Pod {
	marks := wiring.PodOf(p)
	want := roster.Pod{
		UID: marks.UID, Namespace: marks.Namespace, Name: marks.Name, Running: marks.Running, OptedOut: marks.OptedOut,
		Status: marks.Status, Init: marks.Init, Created: marks.Created, Owner: marks.Owner,
		Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
		Finished: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		OptedIn:  p.Annotations[wiring.InjectAnnotation] == "true",
	}
	for _, c := range p.Spec.Containers {
		want.Falco = want.Falco || falco.Is(c.Name, c.Image)
	}
	seen := map[string]bool{}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil && !seen[ip.IP] {
			want.Addresses, seen[ip.IP] = append(want.Addresses, a), true
		}
	}
	return want
}

// TestRosterPodSaysWhatThePodSays compares with the whole pod, as decoded by
// Kubernetes' own code.
func TestRosterPodSaysWhatThePodSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPod(t)
		wire, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var slim slimPod
		if err := slim.Unmarshal(wire); err != nil {
			t.Fatal(err)
		}
		decoded := podDecoder().trimmed(slim.DeepCopyObject())
		got, want := decoded.place.pod(&decoded.Object), rosterPod(p)
		if !want.Falco && !want.OptedIn && want.Status == nil && want.Init.State == wiring.InitNone {
			// The roster holds no more of it; what is said besides is ignored.
			got = roster.Pod{UID: got.UID, Node: got.Node, Addresses: got.Addresses, HostNetwork: got.HostNetwork, Finished: got.Finished, Created: got.Created}
			want = roster.Pod{UID: want.UID, Node: want.Node, Addresses: want.Addresses, HostNetwork: want.HostNetwork, Finished: want.Finished, Created: want.Created}
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateApproxTime(0), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// TestTerminationMessageIsBounded: whoever writes a pod's status could fill our
// memory with it.
func TestTerminationMessageIsBounded(t *testing.T) {
	p := corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{Name: wiring.InitContainer,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: string(make([]byte, 10*maxMessage))}}}}}}
	wire, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var slim slimPod
	if err := slim.Unmarshal(wire); err != nil || len(slim.init.Message) != maxMessage {
		t.Errorf("a message of %d bytes, error %v", len(slim.init.Message), err)
	}
}

// TestRosterNodeSaysWhatTheNodeSays is the same for nodes.
func TestRosterNodeSaysWhatTheNodeSays(t *testing.T) {
	prefixes := []string{"10.1.0.0/24", "fd00:1::/64"}
	for name, c := range map[string]struct {
		spec   corev1.NodeSpec
		status corev1.NodeStatus
		want   roster.Node
	}{
		"bare": {want: roster.Node{}},
		"two families": {
			spec: corev1.NodeSpec{PodCIDR: prefixes[0], PodCIDRs: prefixes, ProviderID: "10.9.9.0/24", Taints: []corev1.Taint{{Key: "k"}}},
			status: corev1.NodeStatus{
				Addresses: []corev1.NodeAddress{
					{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeExternalIP, Address: "2001:db8::1"},
					{Type: corev1.NodeHostName, Address: "192.0.2.7"}, {Type: corev1.NodeInternalIP, Address: "nonsense"},
				},
				Images: []corev1.ContainerImage{{Names: []string{"a"}}},
			},
			want: roster.Node{
				Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
				CIDRs:     []netip.Prefix{netip.MustParsePrefix(prefixes[0]), netip.MustParsePrefix(prefixes[1])},
			},
		},
		"one range": {
			spec: corev1.NodeSpec{PodCIDR: "10.1.0.9/24"},
			want: roster.Node{CIDRs: []netip.Prefix{netip.MustParsePrefix(prefixes[0])}},
		},
		"no range": {spec: corev1.NodeSpec{PodCIDR: "nonsense"}, want: roster.Node{}},
	} {
		t.Run(name, func(t *testing.T) {
			n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u", CreationTimestamp: metav1.NewTime(time.Unix(1, 0))}, Spec: c.spec, Status: c.status}
			wire, err := n.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			var slim slimNode
			if err := slim.Unmarshal(wire); err != nil {
				t.Fatal(err)
			}
			got := nodeDecoder().trimmed(slim.DeepCopyObject())
			c.want.Name, c.want.UID = "n", "u"
			if diff := cmp.Diff(c.want, *got.node, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); got.UID != "u" || diff != "" {
				t.Errorf("UID %q (-want +got):\n%s", got.UID, diff)
			}
		})
	}
}
