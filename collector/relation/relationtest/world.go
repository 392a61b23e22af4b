// Package relationtest makes random histories of Kubernetes objects and knows,
// by brute force, what every node must see of them. Tests of the index and of
// what is built on it hold their results against it.
package relationtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
)

// Event is one step of a history: an object's new version, or its end.
type Event struct {
	Deleted bool
	Object  relation.Object
}

// World is what the API server holds, and hands out as a history. Few names,
// namespaces and nodes make it collide often.
type World struct {
	objects map[string]thing // by UID
	made    int
}

// thing is an object and what its event says.
type thing struct {
	relation.Object
	labels map[string]string
	podIP  string
}

// NewWorld returns an empty world.
func NewWorld() *World { return &World{objects: map[string]thing{}} }

// Nodes are the names of all nodes that pods of the world can be bound to.
func (*World) Nodes() []string { return []string{"a", "b", "c"} }

// ownersOf are the kinds that own an object of the kind: the usual ones, and
// now and then any other.
func ownersOf(kind relation.Kind) []relation.Kind {
	switch kind {
	case relation.ReplicaSet:
		return []relation.Kind{relation.Deployment, relation.Deployment, "Rollout", relation.Job}
	case relation.Job:
		return []relation.Kind{relation.CronJob, relation.CronJob, relation.ReplicaSet, relation.Service}
	default:
		return []relation.Kind{relation.ReplicaSet, relation.ReplicaSet, relation.Job, relation.Job, relation.Deployment,
			relation.DaemonSet, relation.StatefulSet, relation.ReplicationController, "Rollout", relation.Service, relation.Namespace}
	}
}

// Step changes the world at random and tells what the API would say of it: one
// event, or two when an object is deleted and made again under its name.
func (w *World) Step(t *rapid.T) []Event {
	uids := slices.Sorted(maps.Keys(w.objects))
	action := rapid.IntRange(0, 10).Draw(t, "action")
	if action == 10 {
		return w.createChain(t)
	}
	if len(uids) == 0 || action < 5 {
		return w.create(t)
	}
	uid := rapid.SampledFrom(uids).Draw(t, "uid")
	switch {
	case action < 8:
		return []Event{w.put(w.vary(t, w.objects[uid]))}
	case action == 8:
		return []Event{w.remove(uid)}
	default: // delete and recreate under one name
		again := w.objects[uid]
		again.UID = w.uid()
		return []Event{w.remove(uid), w.put(w.vary(t, again))}
	}
}

// Relist returns every object of the kind, as a list from the API would.
func (w *World) Relist(kind relation.Kind) []relation.Object {
	var all []relation.Object
	for _, uid := range slices.Sorted(maps.Keys(w.objects)) {
		if o := w.objects[uid]; o.Kind == kind {
			all = append(all, o.Object)
		}
	}
	return all
}

func (w *World) uid() string {
	w.made++
	return fmt.Sprintf("u%d", w.made)
}

func (w *World) create(t *rapid.T) []Event {
	kinds := append(relation.Kinds(), relation.EndpointSlice, relation.EndpointSlice,
		relation.Pod, relation.Pod, relation.Job, relation.CronJob, relation.ReplicaSet, relation.Deployment)
	o := thing{Object: relation.Object{
		Kind:      rapid.SampledFrom(kinds).Draw(t, "kind"),
		UID:       w.uid(),
		Name:      rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name"),
		Namespace: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "namespace"),
	}}
	if o.Kind == relation.Namespace {
		o.Namespace = ""
	}
	var events []Event
	for uid, other := range w.objects { // the API holds one object of a name
		if o.Kind != relation.Pod && o.Kind == other.Kind && o.Namespace == other.Namespace && o.Name == other.Name {
			events = append(events, w.remove(uid))
		}
	}
	return append(events, w.put(w.vary(t, o)))
}

// createChain makes a pod, its controller and that one's own, seen in any order.
func (w *World) createChain(t *rapid.T) []Event {
	chain := rapid.SampledFrom([][2]relation.Kind{
		{relation.ReplicaSet, relation.Deployment}, {relation.Job, relation.CronJob},
		{relation.Job, relation.ReplicaSet}, {relation.ReplicaSet, relation.Job},
	}).Draw(t, "chain")
	namespace := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "namespace")
	var owner relation.Owner
	var events []Event
	for _, kind := range []relation.Kind{chain[1], chain[0], relation.Pod} {
		uid := w.uid()
		o := relation.Object{Kind: kind, Namespace: namespace, UID: uid, Name: "chain-" + uid, Owner: owner}
		if kind == relation.Pod {
			o.Node = rapid.SampledFrom(w.Nodes()).Draw(t, "node")
		}
		events = append(events, w.put(thing{Object: o}))
		owner = relation.Owner{Kind: string(kind), UID: uid}
	}
	return rapid.Permutation(events).Draw(t, "order")
}

// vary changes whatever may change of an object, or nothing.
func (w *World) vary(t *rapid.T, o thing) thing {
	if rapid.Bool().Draw(t, "relabel") {
		o.labels = map[string]string{"v": rapid.SampledFrom([]string{"1", "2", "<&>"}).Draw(t, "label")}
	}
	if o.Kind == relation.EndpointSlice {
		o.Service = rapid.SampledFrom([]string{"x", "y", "nobody"}).Draw(t, "service")
		o.Endpoints = rapid.SliceOfN(w.anyUID(relation.Pod), 0, 4).Draw(t, "endpoints")
		return o
	}
	switch rapid.IntRange(0, 3).Draw(t, "owned") {
	case 0:
		o.Owner = relation.Owner{}
	case 1, 2:
		kind := rapid.SampledFrom(ownersOf(o.Kind)).Draw(t, "ownerKind")
		o.Owner = relation.Owner{Kind: string(kind), UID: w.anyUID(kind).Draw(t, "owner")}
	}
	if o.Kind == relation.Namespace || o.Kind == relation.Service {
		o.Owner = relation.Owner{}
	}
	if o.Kind == relation.Pod {
		if rapid.IntRange(0, 2).Draw(t, "move") == 0 {
			o.Node = rapid.SampledFrom(append(w.Nodes(), "")).Draw(t, "node")
		}
		o.podIP = rapid.SampledFrom([]string{"", "10.0.0.1"}).Draw(t, "podIP")
	}
	return o
}

// anyUID draws the UID of an existing object of the kind, or one that does not
// exist: references may point ahead, behind, and across namespaces.
func (w *World) anyUID(kind relation.Kind) *rapid.Generator[string] {
	var uids []string
	for _, uid := range slices.Sorted(maps.Keys(w.objects)) {
		if w.objects[uid].Kind == kind {
			uids = append(uids, uid, uid)
		}
	}
	return rapid.SampledFrom(append(uids, fmt.Sprintf("u%d", w.made+1), "never"))
}

func (w *World) put(o thing) Event {
	if o.Kind != relation.EndpointSlice {
		var status *metadata.Status
		if o.Kind == relation.Pod {
			status = &metadata.Status{PodIP: o.podIP}
		}
		o.Event = metadata.Encode(string(o.Kind),
			metadata.Meta{Name: o.Name, Namespace: o.Namespace, UID: o.UID, Labels: o.labels}, status)
	}
	w.objects[o.UID] = o
	return Event{Object: o.Object}
}

func (w *World) remove(uid string) Event {
	o := w.objects[uid]
	delete(w.objects, uid)
	return Event{Deleted: true, Object: o.Object}
}

// View works out, from the definitions alone, what a subscriber of the node
// must know: by UID the event that would create the object.
func (w *World) View(node string) map[string]*metadata.Event {
	view := map[string]*metadata.Event{}
	for _, p := range w.objects {
		if p.Kind != relation.Pod || p.Node != node {
			continue
		}
		refs := map[string]*metadata.ListOfStrings{"Service": {}}
		concern := func(kind, uid string) {
			if o, ok := w.objects[uid]; ok && string(o.Kind) == kind && (o.Namespace == p.Namespace || o.Kind == relation.Namespace) {
				view[uid] = event(o, nil)
			}
		}
		refer := func(kind, uid string) {
			concern(kind, uid)
			if refs[kind] == nil {
				refs[kind] = &metadata.ListOfStrings{}
			}
			if !slices.Contains(refs[kind].List, uid) {
				refs[kind].List = append(refs[kind].List, uid)
			}
		}
		for _, o := range w.objects {
			if o.Kind == relation.Namespace && o.Name == p.Namespace ||
				o.Kind == relation.Service && o.Namespace == p.Namespace && w.hasEndpoint(o, p) {
				refer(string(o.Kind), o.UID)
			}
		}
		if p.Owner.UID != "" && !forged(p.Owner) {
			refer(p.Owner.Kind, p.Owner.UID)
			owner, ok := w.objects[p.Owner.UID]
			if ok && string(owner.Kind) == p.Owner.Kind && owner.Namespace == p.Namespace &&
				owner.Owner.UID != "" && !forged(owner.Owner) {
				switch owner.Kind {
				case relation.ReplicaSet:
					refer(owner.Owner.Kind, owner.Owner.UID)
				case relation.Job:
					concern(owner.Owner.Kind, owner.Owner.UID)
				}
			}
		}
		for _, l := range refs {
			slices.Sort(l.List)
		}
		view[p.UID] = event(p, refs)
	}
	return view
}

// forged: a namespace or a service controls nothing, whatever a reference says.
func forged(o relation.Owner) bool {
	return o.Kind == string(relation.Namespace) || o.Kind == string(relation.Service)
}

// hasEndpoint reports whether a slice of the service names the pod.
func (w *World) hasEndpoint(service, p thing) bool {
	for _, s := range w.objects {
		if s.Kind == relation.EndpointSlice && s.Namespace == service.Namespace && s.Service == service.Name &&
			slices.Contains(s.Endpoints, p.UID) {
			return true
		}
	}
	return false
}

// event is the contract's own words, by the generated code.
func event(o thing, refs map[string]*metadata.ListOfStrings) *metadata.Event {
	meta := map[string]any{"name": o.Name, "uid": o.UID}
	if o.Namespace != "" {
		meta["namespace"] = o.Namespace
	}
	if len(o.labels) > 0 {
		meta["labels"] = o.labels
	}
	text, _ := json.Marshal(meta) // strings only: cannot fail
	e := &metadata.Event{Reason: metadata.Create, Uid: o.UID, Kind: string(o.Kind), Meta: proto.String(string(text))}
	if o.Kind == relation.Pod {
		e.Status = proto.String(`{}`)
		if o.podIP != "" {
			e.Status = proto.String(fmt.Sprintf(`{"podIP":%q}`, o.podIP))
		}
		e.Refs = &metadata.References{Resources: refs}
	}
	return e
}
