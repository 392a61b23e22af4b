package main

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

func TestWorldHoldsWhatConcernsEachNode(t *testing.T) {
	w := world{nodes: 6, pods: 4, replicas: 3}
	keys, uids, addresses := map[string]bool{}, map[string]bool{}, map[string]bool{}
	pods := make([]int, w.nodes)
	for s := range w.objects(0, w.nodes) {
		if keys[s.key] {
			t.Errorf("%s comes twice", s.key)
		}
		keys[s.key] = true
		o, ok := s.object.(metav1.Object)
		if !ok {
			t.Fatalf("%s is a %T", s.key, s.object)
		}
		uids[string(o.GetUID())] = true
		p, ok := s.object.(*corev1.Pod)
		if !ok {
			continue
		}
		node := slices.Index(w.nodeNames(), p.Spec.NodeName)
		pods[node]++
		if !w.uidsOf(node)[string(p.UID)] {
			t.Errorf("uidsOf(%d) lacks pod %s", node, p.Name)
		}
		if addresses[p.Status.PodIP] {
			t.Errorf("%s is two pods' address", p.Status.PodIP)
		}
		addresses[p.Status.PodIP] = true
	}
	for node := range w.nodes {
		if pods[node] != w.pods {
			t.Errorf("node %d has %d pods, want %d", node, pods[node], w.pods)
		}
		concern := w.uidsOf(node)
		if len(concern) != w.perNode() {
			t.Errorf("%d objects concern node %d, want %d", len(concern), node, w.perNode())
		}
		for u := range concern {
			if !uids[u] {
				t.Errorf("no object has UID %s of node %d", u, node)
			}
		}
	}
	for _, p := range w.podsOf(everyNode) {
		if key := "/registry/pods/" + p.namespace + "/" + p.name; !keys[key] {
			t.Errorf("podsOf names %s, which is not there", key)
		}
	}
}

func TestWorldGrowsWithoutWritingAnythingTwice(t *testing.T) {
	w := world{nodes: 9, pods: 2, replicas: 3}
	var steps, whole []string
	for s := range w.objects(0, 3) {
		steps = append(steps, s.key)
	}
	for s := range w.objects(3, 9) {
		steps = append(steps, s.key)
	}
	for s := range w.objects(0, 9) {
		whole = append(whole, s.key)
	}
	if !slices.Equal(steps, whole) {
		t.Errorf("in two steps %q, in one %q", steps, whole)
	}
}

func TestStorageFormIsWhatTheAPIServerReads(t *testing.T) {
	for s := range (world{nodes: 2, pods: 1, replicas: 2}).objects(0, 2) {
		data, err := storageForm(s.object)
		if err != nil {
			t.Fatalf("%s: %v", s.key, err)
		}
		got, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), data)
		if err != nil {
			t.Fatalf("%s: %v", s.key, err)
		}
		if got.GetObjectKind().GroupVersionKind().Empty() {
			t.Errorf("%s: no kind is stored", s.key)
		}
	}
}
