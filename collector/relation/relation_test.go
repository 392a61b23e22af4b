package relation_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/relation/relationtest"
)

// TestEveryView drives random histories through the index and compares every
// node's view with the brute-force oracle after each step; what the changes
// announce must cover every difference.
func TestEveryView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, x := relationtest.NewWorld(), relation.New()
		told := map[string]map[string]string{} // node, UID, event: what the changes told
		for _, n := range w.Nodes() {
			told[n] = map[string]string{}
		}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			for _, e := range w.Step(t) {
				for _, c := range apply(x, e) {
					if c.Concerns {
						event, _ := c.Entity.Event()
						told[c.Node][c.Entity.UID()] = string(event)
					} else {
						delete(told[c.Node], c.Entity.UID())
					}
				}
			}
			for _, n := range w.Nodes() {
				if diff := cmp.Diff(w.View(n), view(t, x, n), protocmp.Transform()); diff != "" {
					t.Fatalf("node %s (-want +got):\n%s", n, diff)
				}
				if diff := cmp.Diff(events(x, n), told[n]); diff != "" {
					t.Fatalf("node %s: changes did not tell (-view +told):\n%s", n, diff)
				}
			}
		}
	})
}

// TestForgetsEverything deletes all objects in any order and looks for what
// stays behind.
func TestForgetsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, x := relationtest.NewWorld(), relation.New()
		for range 40 {
			for _, e := range w.Step(t) {
				apply(x, e)
			}
		}
		kinds := append(relation.Kinds(), relation.EndpointSlice)
		var all []relation.Object
		for _, k := range kinds {
			all = append(all, w.Relist(k)...)
		}
		for _, o := range rapid.Permutation(all).Draw(t, "order") {
			x.Delete(o.Kind, o.UID)
		}
		if held := x.Held(); held != 0 {
			t.Fatalf("%d records stay behind", held)
		}
	})
}

// TestUpsertSaysNothingTwice: a version that says nothing new is no change.
func TestUpsertSaysNothingTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, x := relationtest.NewWorld(), relation.New()
		for range 30 {
			for _, e := range w.Step(t) {
				apply(x, e)
				if again := apply(x, e); len(again) != 0 {
					t.Fatalf("%+v again changes %+v", e, again)
				}
			}
		}
	})
}

func TestSameNameSeenBeforeItsPredecessorIsGone(t *testing.T) {
	x := relation.New()
	x.Upsert(object(relation.Namespace, "", "n", "old"))
	p := object(relation.Pod, "n", "p", "pod")
	p.Node = "a"
	x.Upsert(p)
	x.Upsert(object(relation.Service, "n", "s", "old-service"))
	x.Upsert(relation.Object{Kind: relation.EndpointSlice, Namespace: "n", UID: "slice", Service: "s", Endpoints: []string{"pod"}})
	x.Upsert(object(relation.Namespace, "", "n", "new"))
	x.Upsert(object(relation.Service, "n", "s", "new-service"))
	for _, gone := range []bool{false, true} {
		if x.Lookup("a", "new") == nil || x.Lookup("a", "old") != nil {
			t.Errorf("the new namespace does not stand for the name (old one gone: %v)", gone)
		}
		if x.Lookup("a", "new-service") == nil || x.Lookup("a", "old-service") != nil {
			t.Errorf("the new service does not stand for the name (old one gone: %v)", gone)
		}
		x.Delete(relation.Namespace, "old")
		x.Delete(relation.Service, "old-service")
	}
}

func TestEventIsMadeOncePerVersion(t *testing.T) {
	x := relation.New()
	p := object(relation.Pod, "n", "p", "pod")
	p.Node = "a"
	e := x.Upsert(p)[0].Entity
	first, made := e.Event()
	if !made {
		t.Error("first call made nothing")
	}
	again, made := e.Event()
	if made || &first[0] != &again[0] {
		t.Error("second call made the bytes anew")
	}
	x.Upsert(object(relation.Namespace, "", "n", "ns"))
	if _, made := e.Event(); !made {
		t.Error("new references, old bytes")
	}
}

func apply(x *relation.Index, e relationtest.Event) []relation.Change {
	if e.Deleted {
		return x.Delete(e.Object.Kind, e.Object.UID)
	}
	return x.Upsert(e.Object)
}

func view(t *rapid.T, x *relation.Index, node string) map[string]*metadata.Event {
	view := map[string]*metadata.Event{}
	x.View(node, func(e *relation.Entity) {
		if view[e.UID()] != nil {
			t.Fatalf("%s is in the view of %s twice", e.UID(), node)
		}
		if x.Lookup(node, e.UID()) != e {
			t.Fatalf("%s is in the view of %s, but Lookup does not find it", e.UID(), node)
		}
		event, _ := e.Event()
		ev := &metadata.Event{}
		if err := proto.Unmarshal(event, ev); err != nil {
			t.Fatal(err)
		}
		view[e.UID()] = ev
	})
	return view
}

func events(x *relation.Index, node string) map[string]string {
	events := map[string]string{}
	x.View(node, func(e *relation.Entity) {
		event, _ := e.Event()
		events[e.UID()] = string(event)
	})
	return events
}

func object(kind relation.Kind, namespace, name, uid string) relation.Object {
	return relation.Object{Kind: kind, Namespace: namespace, Name: name, UID: uid,
		Event: metadata.Encode(string(kind), metadata.Meta{Name: name, Namespace: namespace, UID: uid}, nil)}
}

func BenchmarkUpsertPod(b *testing.B) {
	x := fleet(1000)
	pods := make([]relation.Object, 2)
	for i := range pods {
		pods[i] = fleetPod(7, 3)
		pods[i].Event = metadata.Encode("Pod", metadata.Meta{Name: fmt.Sprint(i), UID: pods[i].UID}, &metadata.Status{})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if len(x.Upsert(pods[i%2])) != 1 {
			b.Fatal("not one change")
		}
	}
}

func BenchmarkFirstList(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		fleet(100)
	}
}

func BenchmarkView(b *testing.B) {
	x := fleet(1000)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		x.View("node-7", func(*relation.Entity) { n++ })
		if n < 30 {
			b.Fatal("view is too small")
		}
	}
}

// fleet is an index of nodes with 30 pods each, a ReplicaSet and a Deployment
// to every three pods, and a service to every Deployment.
func fleet(nodes int) *relation.Index {
	x := relation.New()
	x.Upsert(object(relation.Namespace, "", "n", "ns"))
	for n := range nodes {
		for i := range 10 {
			app := fmt.Sprintf("%d-%d", n, i)
			x.Upsert(object(relation.Deployment, "n", app, "deployment-"+app))
			rs := object(relation.ReplicaSet, "n", app, "replicaset-"+app)
			rs.Owner = relation.Owner{Kind: "Deployment", UID: "deployment-" + app}
			x.Upsert(rs)
			x.Upsert(object(relation.Service, "n", app, "service-"+app))
			slice := relation.Object{Kind: relation.EndpointSlice, Namespace: "n", UID: "slice-" + app, Service: app}
			for j := range 3 {
				p := fleetPod(n, 3*i+j)
				x.Upsert(p)
				slice.Endpoints = append(slice.Endpoints, p.UID)
			}
			x.Upsert(slice)
		}
	}
	return x
}

func fleetPod(node, i int) relation.Object {
	p := object(relation.Pod, "n", fmt.Sprintf("p-%d-%d", node, i), fmt.Sprintf("pod-%d-%d", node, i))
	p.Node = fmt.Sprintf("node-%d", node)
	p.Owner = relation.Owner{Kind: "ReplicaSet", UID: fmt.Sprintf("replicaset-%d-%d", node, i/3)}
	return p
}
