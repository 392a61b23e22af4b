package integration_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/tests/falco/plugin"
)

// known are the objects that a subscriber knows, as "Kind name", but for the
// namespace, whose name is made up.
func known(c *plugin.Client) []string {
	var all []string
	for _, e := range c.Table() {
		if e.Kind != "Namespace" {
			_, name, _ := strings.Cut(e.GetMeta(), `"name":"`)
			name, _, _ = strings.Cut(name, `"`)
			all = append(all, e.Kind+" "+name)
		}
	}
	slices.Sort(all)
	return all
}

// TestEveryKind follows objects of every kind over two nodes: what arrives
// where, what changes, and what leaves.
func TestEveryKind(t *testing.T) {
	t.Parallel()
	ns, other := newNamespace(t), newNamespace(t)
	a, b := ns+"-a", ns+"-b"
	c := started(t, setup{kubeconfig: plane.Kubeconfig()})
	nodes := map[string]*plugin.Client{a: subscribe(t, a, c.at), b: subscribe(t, b, c.at)}
	expect := func(what string, onA, onB []string) {
		t.Helper()
		converge(t, nodes)
		for node, want := range map[string][]string{a: onA, b: onB} {
			if diff := cmp.Diff(want, known(nodes[node])); diff != "" {
				t.Errorf("%s: node %s (-want +got):\n%s", what, node, diff)
			}
		}
	}
	expect("nothing there", nil, nil)

	kinds := workloads()
	made := map[string]client.Object{}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		made[kind] = kinds[kind](ns, strings.ToLower(kind))
	}
	create(t, made["Deployment"], made["CronJob"])
	owned(made["ReplicaSet"], made["Deployment"])
	owned(made["Job"], made["CronJob"])
	pods := map[string]*corev1.Pod{}
	for _, kind := range []string{"ReplicaSet", "Job", "StatefulSet", "DaemonSet", "ReplicationController"} {
		create(t, made[kind])
		pods[kind] = owned(newPod(ns, "of-"+strings.ToLower(kind), a), made[kind])
		create(t, pods[kind])
	}
	second := owned(newPod(ns, "second", b), made["ReplicaSet"])
	svc, foreign := newService(ns, "svc"), newService(other, "foreign")
	create(t, second, svc, foreign)
	slice := newSlice(ns, "one", "svc", pods["ReplicaSet"], second)
	// It names a pod of another namespace, and is not to be believed.
	create(t, slice, newSlice(other, "foreign", "foreign", pods["Job"]))
	everything := []string{"CronJob cronjob", "DaemonSet daemonset", "Deployment deployment", "Job job",
		"Pod of-daemonset", "Pod of-job", "Pod of-replicaset", "Pod of-replicationcontroller", "Pod of-statefulset",
		"ReplicaSet replicaset", "ReplicationController replicationcontroller", "Service svc", "StatefulSet statefulset"}
	ofSecond := []string{"Deployment deployment", "Pod second", "ReplicaSet replicaset", "Service svc"}
	expect("created", everything, ofSecond)

	for _, o := range made {
		change(t, o, func(o client.Object) { o.SetLabels(map[string]string{"changed": "yes"}) })
	}
	second.Status.PodIP, second.Status.PodIPs = "10.1.2.3", []corev1.PodIP{{IP: "10.1.2.3"}}
	if err := api.Status().Update(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	expect("changed", everything, ofSecond)

	// From one slice to another, in both for a while.
	two := newSlice(ns, "two", "svc", second)
	create(t, two)
	change(t, slice, func(s *discoveryv1.EndpointSlice) { s.Endpoints = endpoints(pods["ReplicaSet"]) })
	expect("moved between slices", everything, ofSecond)
	change(t, slice, func(s *discoveryv1.EndpointSlice) { s.Endpoints = endpoints() })
	expect("left the service", without(everything, "Service svc"), ofSecond)
	remove(t, svc)
	expect("service deleted", without(everything, "Service svc"), without(ofSecond, "Service svc"))

	// Another object under the same name.
	remove(t, second)
	again := owned(newPod(ns, "second", a), made["ReplicaSet"])
	create(t, again)
	expect("made again on the other node", sorted(append(without(everything, "Service svc"), "Pod second")), nil)
	remove(t, pods["Job"])
	remove(t, pods["ReplicaSet"])
	remove(t, again)
	expect("the last pods left", without(everything, "Service svc", "Pod of-job", "Job job", "CronJob cronjob",
		"Pod of-replicaset", "ReplicaSet replicaset", "Deployment deployment"), nil)
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func without(s []string, gone ...string) []string {
	return slices.DeleteFunc(slices.Clone(s), func(e string) bool { return slices.Contains(gone, e) })
}
