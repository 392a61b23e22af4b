package main

import (
	"fmt"
	"iter"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// world is the shape of the simulated cluster. Nodes stand in groups of
// replicas; each group is one namespace that has as many Deployments as a node
// has pods, each with one replica on every node of the group, a ReplicaSet, a
// Service and its EndpointSlice. So each node concerns 4*pods+1 objects.
type world struct {
	nodes    int // a multiple of replicas
	pods     int // a node
	replicas int // pods a Deployment
}

// perNode is how many objects concern a node.
func (w world) perNode() int { return 4*w.pods + 1 }

func (w world) totalPods() int { return w.nodes * w.pods }

func nodeName(node int) string { return fmt.Sprintf("node-%05d", node) }

// nodeNames returns the names of the nodes in their order.
func (w world) nodeNames() []string {
	names := make([]string, w.nodes)
	for i := range names {
		names[i] = nodeName(i)
	}
	return names
}

// uid is made from what it names, so that nobody has to keep it.
func uid(kind, namespace, name string) types.UID {
	return types.UID(uuid.NewSHA1(uuid.NameSpaceOID, []byte(kind+"/"+namespace+"/"+name)).String())
}

// app is one Deployment and what belongs to it.
type app struct {
	world
	group, number int
}

func (w world) apps(group int) iter.Seq[app] {
	return func(yield func(app) bool) {
		for d := range w.pods {
			if !yield(app{w, group, d}) {
				return
			}
		}
	}
}

func (a app) namespace() string  { return fmt.Sprintf("team-%04d", a.group) }
func (a app) name() string       { return fmt.Sprintf("service-%02d", a.number) }
func (a app) replicaSet() string { return a.name() + "-" + a.hash() }
func (a app) hash() string       { return fmt.Sprintf("7d9f%06x", a.group*a.pods+a.number) }
func (a app) node(replica int) int {
	return a.group*a.replicas + replica
}
func (a app) podName(replica int) string { return fmt.Sprintf("%s-%05x", a.replicaSet(), replica) }

// podIP gives each pod of up to 16,384 nodes with 250 pods its own address.
func (a app) podIP(replica int) string {
	n := a.node(replica)
	return fmt.Sprintf("10.%d.%d.%d", 64+n/256, n%256, a.number+2)
}

// pod names a pod for whoever changes it.
type pod struct {
	node            int
	namespace, name string
}

// podsOf returns the pods of the nodes that keep accepts, node by node.
func (w world) podsOf(keep func(node int) bool) []pod {
	var all []pod
	for n := range w.nodes {
		if !keep(n) {
			continue
		}
		for a := range w.apps(n / w.replicas) {
			all = append(all, pod{n, a.namespace(), a.podName(n % w.replicas)})
		}
	}
	return all
}

// uidsOf returns the UIDs of all objects that concern a node.
func (w world) uidsOf(node int) map[string]bool {
	group, uids := node/w.replicas, make(map[string]bool, w.perNode())
	for a := range w.apps(group) {
		uids[string(uid("Namespace", "", a.namespace()))] = true
		uids[string(uid("Deployment", a.namespace(), a.name()))] = true
		uids[string(uid("ReplicaSet", a.namespace(), a.replicaSet()))] = true
		uids[string(uid("Service", a.namespace(), a.name()))] = true
		uids[string(uid("Pod", a.namespace(), a.podName(node%w.replicas)))] = true
	}
	return uids
}

// stored is an object and its key in the API server's storage.
type stored struct {
	key    string
	object runtime.Object
}

// objects returns all objects of the nodes from (inclusive) to (exclusive),
// both multiples of replicas: what others refer to comes first.
func (w world) objects(from, to int) iter.Seq[stored] {
	return func(yield func(stored) bool) {
		for group := from / w.replicas; group < to/w.replicas; group++ {
			for _, s := range w.group(group) {
				if !yield(s) {
					return
				}
			}
		}
	}
}

func (w world) group(group int) []stored {
	var all []stored
	put := func(prefix string, o interface {
		runtime.Object
		metav1.Object
	}) {
		key := "/registry/" + prefix + "/"
		if o.GetNamespace() != "" {
			key += o.GetNamespace() + "/"
		}
		all = append(all, stored{key + o.GetName(), o})
	}
	put("namespaces", namespaceObject(app{w, group, 0}.namespace()))
	for n := range w.replicas {
		put("minions", nodeObject(group*w.replicas+n))
	}
	for a := range w.apps(group) {
		put("deployments", a.deploymentObject())
		put("replicasets", a.replicaSetObject())
		put("services/specs", a.serviceObject())
		put("endpointslices", a.sliceObject())
		for r := range w.replicas {
			put("pods", a.podObject(r))
		}
	}
	return all
}
