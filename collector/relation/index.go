package relation

import "bytes"

// Index holds the latest version of every object and which nodes it concerns.
// It is not safe for concurrent use.
type Index struct {
	live       map[string]*Entity // by UID: every object that subscribers may be sent
	objects    map[objectKey]*object
	pods       map[podKey]*pod
	namespaces map[string]*namespace
	services   map[serviceKey]*service
	slices     map[string]*slice // by UID
	nodes      map[string]*node

	counts  map[Kind]int
	changes []Change
	nodeIDs uint64
	views   uint64
}

// New returns an empty index.
func New() *Index {
	return &Index{
		live:       map[string]*Entity{},
		objects:    map[objectKey]*object{},
		pods:       map[podKey]*pod{},
		namespaces: map[string]*namespace{},
		services:   map[serviceKey]*service{},
		slices:     map[string]*slice{},
		nodes:      map[string]*node{},
		counts:     map[Kind]int{},
	}
}

// Upsert takes in an object's latest version. It returns what may have changed
// for which node: nothing if the version says nothing new. The result is valid
// until the next call.
func (x *Index) Upsert(o Object) []Change {
	x.changes = x.changes[:0]
	switch o.Kind {
	case EndpointSlice:
		x.upsertSlice(o)
	case Pod:
		x.upsertPod(o)
	default:
		x.upsertObject(o)
	}
	return x.changes
}

// Delete takes an object out; an unknown one is no error. The result is as
// Upsert's.
func (x *Index) Delete(kind Kind, uid string) []Change {
	x.changes = x.changes[:0]
	if kind == EndpointSlice {
		x.deleteSlice(uid)
		return x.changes
	}
	switch e := x.live[uid]; {
	case e == nil || e.kind != kind:
	case e.pod != nil:
		x.deletePod(e.pod)
	default:
		x.deleteObject(e.object)
	}
	return x.changes
}

// UIDs returns the UIDs of all objects of the kind, in no order.
func (x *Index) UIDs(kind Kind) []string {
	var uids []string
	if kind == EndpointSlice {
		for uid := range x.slices {
			uids = append(uids, uid)
		}
		return uids
	}
	for uid, e := range x.live {
		if e.kind == kind {
			uids = append(uids, uid)
		}
	}
	return uids
}

// Len returns how many objects of the kind the index holds.
func (x *Index) Len(kind Kind) int {
	if kind == EndpointSlice {
		return len(x.slices)
	}
	return x.counts[kind]
}

func (x *Index) enter(e *Entity) {
	x.live[e.uid] = e
	x.counts[e.kind]++
}

func (x *Index) exit(e *Entity) {
	delete(x.live, e.uid)
	x.counts[e.kind]--
}

// View calls f for every object that concerns the node, once each.
func (x *Index) View(nodeName string, f func(*Entity)) {
	n := x.nodes[nodeName]
	if n == nil {
		return
	}
	x.views++
	for _, p := range n.pods.pods {
		f(&p.Entity)
		once := func(o *object) {
			if o.live && o.mark != x.views {
				o.mark = x.views
				f(&o.Entity)
			}
		}
		p.links.each(once)
		p.eachService(once)
	}
}

// Lookup returns the object if it concerns the node, else nil.
func (x *Index) Lookup(nodeName, uid string) *Entity {
	e, n := x.live[uid], x.nodes[nodeName]
	if e == nil || n == nil || e.pod != nil && e.pod.node != n || e.object != nil && !e.object.nodes.has(n) {
		return nil
	}
	return e
}

// upsertObject takes in anything but a pod and an EndpointSlice.
func (x *Index) upsertObject(o Object) {
	ob := x.object(objectKey{o.Kind, o.Namespace, o.UID})
	controller := x.acquire(o.Namespace, o.Owner)
	same := ob.live && bytes.Equal(ob.event, o.Event)
	if !same {
		ob.setPlain(o.Event)
		for _, c := range ob.nodes {
			x.emit(c.node, &ob.Entity, true)
		}
	}
	first := !ob.live
	if first {
		ob.live = true
		x.enter(&ob.Entity)
	}
	before := ob.controller
	ob.controller = controller
	if before != controller {
		x.relinkAll(ob.pods.pods)
	}
	x.release(before)
	if first {
		x.bind(ob, o.Name)
	}
}

func (x *Index) deleteObject(ob *object) {
	for _, c := range ob.nodes {
		x.emit(c.node, &ob.Entity, false)
	}
	ob.live = false
	x.exit(&ob.Entity)
	ob.setPlain(nil)
	before := ob.controller
	ob.controller = nil
	if before != nil {
		x.relinkAll(ob.pods.pods)
	}
	x.release(before)
	x.unbind(ob)
	x.drop(ob)
}

// bind lets a namespace or service be found by its name. The latest wins: a new
// object may be seen before its predecessor of that name is gone.
func (x *Index) bind(ob *object, name string) {
	switch ob.kind {
	case Namespace:
		ob.asNamespace = x.namespace(name)
		ob.asNamespace.object = ob
		x.relinkAll(ob.asNamespace.pods.pods)
	case Service:
		ob.asService = x.service(serviceKey{ob.namespace, name})
		x.name(ob.asService, ob)
	}
}

func (x *Index) unbind(ob *object) {
	if n := ob.asNamespace; n != nil {
		if n.object == ob {
			n.object = nil
			x.relinkAll(n.pods.pods)
		}
		x.dropNamespace(n)
	}
	if s := ob.asService; s != nil {
		if s.object == ob {
			x.name(s, nil)
		}
		x.dropService(s)
	}
	ob.asNamespace, ob.asService = nil, nil
}

func (x *Index) upsertPod(o Object) {
	p := x.pod(podKey{o.Namespace, o.UID})
	if !p.live {
		p.live = true
		p.namespace.pods.add(p)
		x.enter(&p.Entity)
	}
	same := bytes.Equal(p.event[:p.plain], o.Event)
	if !same {
		p.setPlain(o.Event)
	}
	p.node = x.node(o.Node)
	if before, owner := p.owner, x.acquire(o.Namespace, o.Owner); before == owner {
		x.release(owner)
	} else {
		x.setOwner(p, owner)
	}
	if !x.relink(p) && !same && p.node != nil {
		x.emit(p.node, &p.Entity, true)
	}
}

func (x *Index) deletePod(p *pod) {
	p.live = false
	x.exit(&p.Entity)
	x.relink(p)
	p.namespace.pods.remove(p)
	x.setOwner(p, nil)
	p.node = nil
	p.setPlain(nil)
	x.dropPod(p)
}

// setOwner hands the pod over from its old owner to a new one, either nil.
func (x *Index) setOwner(p *pod, owner *object) {
	before := p.owner
	if before != nil {
		before.pods.remove(p)
	}
	p.owner = owner
	if owner != nil {
		owner.pods.add(p)
	}
	if before != nil {
		// links may still name it until the pod is linked anew
		x.relink(p)
	}
	x.release(before)
}

func (x *Index) upsertSlice(o Object) {
	old := x.slices[o.UID]
	if old.says(o) {
		return // most updates are about readiness
	}
	s := &slice{service: x.service(serviceKey{o.Namespace, o.Service}), pods: make([]*pod, len(o.Endpoints))}
	s.service.slices++
	x.slices[o.UID] = s
	for i, uid := range o.Endpoints {
		s.pods[i] = x.pod(podKey{o.Namespace, uid})
		if s.pods[i].join(s.service) && s.service.object != nil {
			x.relinkService(s.pods[i], s.service.object, true)
		}
	}
	// Only now leave the old ones: a pod in both has not changed.
	x.leaveSlice(old)
}

func (x *Index) deleteSlice(uid string) {
	s := x.slices[uid]
	delete(x.slices, uid)
	x.leaveSlice(s)
}

func (x *Index) leaveSlice(s *slice) {
	if s == nil {
		return
	}
	for _, p := range s.pods {
		if p.leave(s.service) {
			if s.service.object != nil {
				x.relinkService(p, s.service.object, false)
			}
			x.dropPod(p)
		}
	}
	s.service.slices--
	x.dropService(s.service)
}
