package source

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
)

// TestSlimPodSaysWhatThePodSays encodes pods with Kubernetes' own code, with
// much that is to be passed over, and compares with the whole pod.
func TestSlimPodSaysWhatThePodSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "next", RemainingItemCount: ptr.To(int64(3))}}
		var want []relation.Object
		for range rapid.IntRange(0, 3).Draw(t, "pods") {
			p := corev1.Pod{
				ObjectMeta: drawMeta(t),
				Spec: corev1.PodSpec{
					NodeName:                      text.Draw(t, "node"),
					Containers:                    []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: text.Draw(t, "env")}}}},
					TerminationGracePeriodSeconds: ptr.To(int64(30)),
				},
				Status: corev1.PodStatus{PodIP: text.Draw(t, "ip"), HostIP: text.Draw(t, "hostIP"), Phase: corev1.PodRunning},
			}
			o := trimMeta(relation.Pod, &p.ObjectMeta, &metadata.Status{PodIP: p.Status.PodIP})
			o.Node = p.Spec.NodeName
			list.Items, want = append(list.Items, p), append(want, o)
		}
		wire, err := list.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got := &slimList[slimPod, *slimPod]{}
		if err := got.Unmarshal(wire); err != nil {
			t.Fatal(err)
		}
		check(t, got.ListMeta, list.ListMeta, len(got.Items), want, func(i int) (relation.Object, string) {
			return podDecoder().trimmed(&got.Items[i]).Object, got.Items[i].ResourceVersion
		})
	})
}

// TestSlimSliceSaysWhatTheSliceSays is the same for EndpointSlices.
func TestSlimSliceSaysWhatTheSliceSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := discoveryv1.EndpointSliceList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
		var want []relation.Object
		for range rapid.IntRange(0, 3).Draw(t, "slices") {
			s := discoveryv1.EndpointSlice{ObjectMeta: drawMeta(t), AddressType: discoveryv1.AddressTypeIPv4}
			o := relation.Object{Kind: relation.EndpointSlice, UID: string(s.UID), Namespace: s.Namespace, Name: s.Name,
				Service: s.Labels[discoveryv1.LabelServiceName]}
			for range rapid.IntRange(0, 3).Draw(t, "endpoints") {
				e := discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, NodeName: ptr.To("n"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}
				if rapid.Bool().Draw(t, "target") {
					e.TargetRef = &corev1.ObjectReference{Kind: rapid.SampledFrom([]string{"Pod", "Node"}).Draw(t, "kind"), UID: types.UID(text.Draw(t, "uid")), Name: "p"}
					if e.TargetRef.Kind == "Pod" && e.TargetRef.UID != "" {
						o.Endpoints = append(o.Endpoints, string(e.TargetRef.UID))
					}
				}
				s.Endpoints = append(s.Endpoints, e)
			}
			list.Items, want = append(list.Items, s), append(want, o)
		}
		wire, err := list.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got := &slimList[slimSlice, *slimSlice]{}
		if err := got.Unmarshal(wire); err != nil {
			t.Fatal(err)
		}
		check(t, got.ListMeta, list.ListMeta, len(got.Items), want, func(i int) (relation.Object, string) {
			return sliceDecoder().trimmed(&got.Items[i]).Object, got.Items[i].ResourceVersion
		})
	})
}

var text = rapid.StringMatching(`[a-z0-9.-]{0,12}`)

func drawMeta(t *rapid.T) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Name: text.Draw(t, "name"), GenerateName: text.Draw(t, "generateName"), Namespace: text.Draw(t, "namespace"),
		UID: types.UID(text.Draw(t, "uid")), ResourceVersion: "42", Generation: 3,
		Labels:            rapid.MapOfN(text, text, 0, 3).Draw(t, "labels"),
		Annotations:       map[string]string{"a": text.Draw(t, "annotation")},
		Finalizers:        []string{"f"},
		CreationTimestamp: metav1.Unix(1, 0),
		ManagedFields:     []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)}},
	}
	if rapid.Bool().Draw(t, "labelled") {
		m.Labels[discoveryv1.LabelServiceName] = text.Draw(t, "service")
	}
	for range rapid.IntRange(0, 2).Draw(t, "owners") {
		m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{
			Kind: "ReplicaSet", UID: types.UID(text.Draw(t, "owner")), Name: "o", Controller: ptr.To(rapid.Bool().Draw(t, "controller"))})
	}
	return m
}

func check(t *rapid.T, gotMeta, wantMeta metav1.ListMeta, items int, want []relation.Object, item func(int) (relation.Object, string)) {
	if diff := cmp.Diff(wantMeta, gotMeta); diff != "" {
		t.Fatal(diff)
	}
	if items != len(want) {
		t.Fatalf("%d items, want %d", items, len(want))
	}
	for i := range want {
		got, version := item(i)
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Fatal(diff)
		}
		if version != "42" {
			t.Fatalf("resourceVersion %q", version)
		}
	}
}

// TestBookmarkKeepsItsMark: the reflector tells the end of a streamed list by
// an annotation.
func TestBookmarkKeepsItsMark(t *testing.T) {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true", "other": "x"}}}
	wire, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var got slimPod
	if err := got.Unmarshal(wire); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{metav1.InitialEventsAnnotationKey: "true"}, got.Annotations); diff != "" {
		t.Error(diff)
	}
}

func FuzzSlimPod(f *testing.F) {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{NodeName: "n"}}
	wire, err := p.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Add(wire[:len(wire)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole corev1.Pod
		var slim slimPod
		_ = slim.Unmarshal(b) // must not panic
		if whole.Unmarshal(b) != nil {
			return
		}
		wire, err := whole.Marshal() // as an API server would send it
		if err != nil {
			return
		}
		slim.Reset()
		if err := slim.Unmarshal(wire); err != nil {
			t.Fatalf("Kubernetes reads it, we do not: %v", err)
		}
		if slim.Name != whole.Name || slim.node != whole.Spec.NodeName || slim.UID != whole.UID || slim.ip != whole.Status.PodIP ||
			slim.hostNetwork != whole.Spec.HostNetwork || slim.running != (whole.Status.Phase == corev1.PodRunning) {
			t.Errorf("read %q on %q at %q, want %q on %q at %q", slim.Name, slim.node, slim.ip, whole.Name, whole.Spec.NodeName, whole.Status.PodIP)
		}
	})
}

// TestOwnerThatIsNoTextIsDropped: the API server accepts any bytes there, and a
// subscriber would refuse the event, again and again.
func TestOwnerThatIsNoTextIsDropped(t *testing.T) {
	for name, owner := range map[string]metav1.OwnerReference{
		"kind": {Kind: "X\xff", UID: "u", Controller: ptr.To(true)},
		"UID":  {Kind: "ReplicaSet", UID: "\xff", Controller: ptr.To(true)},
	} {
		o := trimMeta(relation.Pod, &metav1.ObjectMeta{UID: "p", OwnerReferences: []metav1.OwnerReference{owner}}, nil)
		if o.Owner != (relation.Owner{}) {
			t.Errorf("%s: owner %q is believed", name, o.Owner)
		}
	}
}
