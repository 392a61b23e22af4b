package relation

import (
	"slices"
	"strings"

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

// links are the objects that a live pod makes concern its node. They are
// derived as a whole and compared as a whole.
type links struct {
	node              *node
	namespace         *object
	owner, controller *object   // the pod's controller and that one's own
	services          []*object // sorted by UID
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
	for _, m := range p.services {
		if m.service.object != nil {
			l.services = append(l.services, m.service.object)
		}
	}
	slices.SortFunc(l.services, func(a, b *object) int { return strings.Compare(a.uid, b.uid) })
	return l
}

// equal reports whether both hold the same objects; the node is compared apart.
func (l *links) equal(o *links) bool {
	return l.namespace == o.namespace && l.owner == o.owner && l.controller == o.controller &&
		slices.Equal(l.services, o.services)
}

// each calls f for every linked object.
func (l *links) each(f func(*object)) {
	for _, o := range [...]*object{l.namespace, l.owner, l.controller} {
		if o != nil {
			f(o)
		}
	}
	for _, o := range l.services {
		f(o)
	}
}

// refs are the references that subscribers are told: all links, but for a Job's
// controller, which decides which nodes a CronJob concerns and nothing else.
func (l *links) refs() []metadata.Ref {
	refs := make([]metadata.Ref, 0, 3+len(l.services))
	l.each(func(o *object) {
		if o == l.controller && l.owner.kind == Job {
			return
		}
		refs = append(refs, metadata.Ref{Kind: string(o.kind), UID: o.uid})
	})
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
