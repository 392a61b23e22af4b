package relation

import (
	"slices"

	"github.com/metawire/metawire/collector/metadata"
)

// pod is a pod, held from the first EndpointSlice that names it, before it is
// seen: it is live only once it is upserted. It is found by UID and namespace,
// so an endpoint is believed only if its UID is a pod of the slice's namespace.
type pod struct {
	Entity
	namespace *namespace
	live      bool
	node      *node
	owner     *object // its controller
	services  []membership
	links     links
	place     [setSlots]int32
}

type podKey struct{ namespace, uid string }

// membership counts in how many slices of a service a pod is: it may stand in
// two while it moves between them.
type membership struct {
	service *service
	slices  int
}

// links are what a live pod relates to, but for its services: those change one
// by one, and a pod may have many. Links are derived and compared as a whole.
type links struct {
	node              *node
	namespace         *object
	owner, controller *object // the pod's controller and that one's own
}

// derive works out the pod's links from what is known now.
func (p *pod) derive() links {
	if !p.live {
		return links{}
	}
	l := links{node: p.node, namespace: p.namespace.object, owner: p.owner}
	if l.owner != nil && (l.owner.kind == ReplicaSet || l.owner.kind == Job) {
		l.controller = l.owner.controller
	}
	return l
}

// each calls f for every linked object.
func (l *links) each(f func(*object)) {
	for _, o := range [...]*object{l.namespace, l.owner, l.controller} {
		if o != nil {
			f(o)
		}
	}
}

// eachService calls f for every service that the pod is an endpoint of and that
// is there.
func (p *pod) eachService(f func(*object)) {
	for _, m := range p.services {
		if m.service.object != nil {
			f(m.service.object)
		}
	}
}

// refs are the references that subscribers are told: all that the pod relates
// to, but for a Job's controller, which decides which nodes a CronJob concerns
// and nothing else.
func (p *pod) refs() []metadata.Ref {
	refs := make([]metadata.Ref, 0, 3+len(p.services))
	add := func(o *object) { refs = append(refs, metadata.Ref{Kind: string(o.kind), UID: o.uid}) }
	p.links.each(func(o *object) {
		if o != p.links.controller || p.links.owner.kind != Job {
			add(o)
		}
	})
	p.eachService(add)
	return refs
}

// join adds the membership of one slice of the service. It reports whether it
// is the first.
func (p *pod) join(s *service) bool {
	for i := range p.services {
		if p.services[i].service == s {
			p.services[i].slices++
			return false
		}
	}
	p.services = append(p.services, membership{s, 1})
	s.pods[p] = struct{}{}
	return true
}

// leave takes the membership of one slice of the service away. It reports
// whether it was the last.
func (p *pod) leave(s *service) bool {
	i := slices.IndexFunc(p.services, func(m membership) bool { return m.service == s })
	if p.services[i].slices--; p.services[i].slices > 0 {
		return false
	}
	p.services = slices.Delete(p.services, i, i+1)
	delete(s.pods, p)
	return true
}
