package relation

// relink derives the pod's links anew and accounts for the difference. It
// reports whether it emitted a change of the pod itself.
func (x *Index) relink(p *pod) bool {
	old := p.links
	p.links = p.derive()
	if old == p.links {
		return false
	}
	// Count the new before the old, so that what stays does not leave for a
	// moment.
	from, to := old.node, p.links.node
	p.links.each(func(o *object) { x.join(o, to) })
	old.each(func(o *object) { x.leave(o, from) })
	if from != to {
		p.eachService(func(o *object) {
			x.join(o, to)
			x.leave(o, from)
		})
		x.move(p, from, to)
	}
	return x.refer(p)
}

// relinkService accounts for one service that the pod is an endpoint of now, or
// no more.
func (x *Index) relinkService(p *pod, service *object, member bool) {
	if member {
		x.join(service, p.links.node)
	} else {
		x.leave(service, p.links.node)
	}
	x.refer(p)
}

// join counts one pod that makes the object concern the node, which may be nil.
func (x *Index) join(o *object, n *node) {
	if n != nil && o.nodes.inc(n) && o.live {
		x.emit(n, &o.Entity, true)
	}
}

// leave takes it back.
func (x *Index) leave(o *object, n *node) {
	if n != nil && o.nodes.dec(n) && o.live {
		x.emit(n, &o.Entity, false)
	}
}

// refer says that the pod's references have changed. It reports whether that
// concerns a node.
func (x *Index) refer(p *pod) bool {
	if p.live {
		p.dropRefs()
	}
	if p.links.node == nil {
		return false
	}
	x.emit(p.links.node, &p.Entity, true)
	return true
}

// move takes the pod from one node to another, either nil.
func (x *Index) move(p *pod, from, to *node) {
	if from != nil {
		from.pods.remove(p)
		x.emit(from, &p.Entity, false)
		if len(from.pods.pods) == 0 {
			delete(x.nodes, from.name)
		}
	}
	if to != nil {
		to.pods.add(p)
	}
}

func (x *Index) relinkAll(pods []*pod) {
	for _, p := range pods {
		x.relink(p)
	}
}

// name makes the object, nil for none, the one that goes by the service's name.
func (x *Index) name(s *service, o *object) {
	before := s.object
	s.object = o
	for p := range s.pods {
		if o != nil {
			x.relinkService(p, o, true)
		}
		if before != nil {
			x.relinkService(p, before, false)
		}
	}
}

func (x *Index) emit(n *node, e *Entity, concerns bool) {
	x.changes = append(x.changes, Change{Node: n.name, Entity: e, Concerns: concerns})
}

// acquire returns the object that the reference names, held until release; nil
// for none. Whoever makes a pod writes its owner references, so one that would
// pass for its namespace or a service of its is not believed.
func (x *Index) acquire(ns string, o Owner) *object {
	if o.UID == "" || !mayOwn(Kind(o.Kind)) {
		return nil
	}
	ob := x.object(objectKey{Kind(o.Kind), ns, o.UID})
	ob.uses++
	return ob
}

func (x *Index) release(ob *object) {
	if ob == nil {
		return
	}
	ob.uses--
	x.drop(ob)
}

// drop forgets an object that neither lives nor is named by another.
func (x *Index) drop(ob *object) {
	if !ob.live && ob.uses == 0 {
		delete(x.objects, objectKey{ob.kind, ob.namespace, ob.uid})
	}
}

func (x *Index) object(k objectKey) *object {
	ob := x.objects[k]
	if ob == nil {
		ob = &object{namespace: k.namespace, pods: podSet{slot: inOwner}}
		ob.Entity = Entity{kind: k.kind, uid: k.uid, object: ob}
		x.objects[k] = ob
	}
	return ob
}

func (x *Index) pod(k podKey) *pod {
	p := x.pods[k]
	if p == nil {
		p = &pod{namespace: x.namespace(k.namespace)}
		p.Entity = Entity{kind: Pod, uid: k.uid, pod: p}
		p.namespace.known++
		x.pods[podKey{p.namespace.name, k.uid}] = p
	}
	return p
}

// dropPod forgets a pod that neither lives nor is an endpoint.
func (x *Index) dropPod(p *pod) {
	if !p.live && len(p.services) == 0 {
		delete(x.pods, podKey{p.namespace.name, p.uid})
		p.namespace.known--
		x.dropNamespace(p.namespace)
	}
}

func (x *Index) namespace(name string) *namespace {
	n := x.namespaces[name]
	if n == nil {
		n = &namespace{name: name, pods: podSet{slot: inNamespace}}
		x.namespaces[name] = n
	}
	return n
}

func (x *Index) dropNamespace(n *namespace) {
	if n.object == nil && n.known == 0 {
		delete(x.namespaces, n.name)
	}
}

func (x *Index) service(k serviceKey) *service {
	s := x.services[k]
	if s == nil {
		s = &service{key: k, pods: map[*pod]struct{}{}}
		x.services[k] = s
	}
	return s
}

func (x *Index) dropService(s *service) {
	if s.object == nil && s.slices == 0 {
		delete(x.services, s.key)
	}
}

// node returns nil for the empty name: a pod that is not bound yet.
func (x *Index) node(name string) *node {
	if name == "" {
		return nil
	}
	n := x.nodes[name]
	if n == nil {
		x.nodeIDs++
		n = &node{id: x.nodeIDs, name: name, pods: podSet{slot: inNode}}
		x.nodes[name] = n
	}
	return n
}
