package relation

import (
	"cmp"
	"slices"
)

// object is everything that pods relate to: namespaces, owners and services.
// An owner is held from the first reference to it, before it is seen and even
// if it is of a kind that is never seen (a Node, a Rollout): it is live only
// once it is upserted.
type object struct {
	Entity
	namespace string
	live      bool
	nodes     nodeCounts // how many pods make it concern which node
	// For owners: their own controller, the pods they control, and how many
	// pods and objects name them as their controller.
	controller *object
	pods       podSet
	uses       int
	// For namespaces and services: what goes by their name.
	asNamespace *namespace
	asService   *service
	mark        uint64 // the last View that came by
}

// objectKey holds the namespace besides the UID so that a reference is believed
// only within the namespace it comes from.
type objectKey struct {
	kind           Kind
	namespace, uid string
}

// namespace is what goes by one namespace's name. Its object may change: a
// namespace that is made again has another UID.
type namespace struct {
	name   string
	object *object // nil until seen
	pods   podSet
	known  int // pods of that namespace, seen or only named by an EndpointSlice
}

// service is what goes by one service's name.
type service struct {
	key    serviceKey
	object *object // nil until seen
	pods   map[*pod]struct{}
	slices int
}

type serviceKey struct{ namespace, name string }

// slice is an EndpointSlice.
type slice struct {
	service *service
	pods    []*pod
}

// says reports whether the slice says the same as the object.
func (s *slice) says(o Object) bool {
	return s != nil && s.service.key == serviceKey{o.Namespace, o.Service} &&
		slices.EqualFunc(s.pods, o.Endpoints, func(p *pod, uid string) bool { return p.uid == uid })
}

// node is a node that some pod is bound to. id orders nodes.
type node struct {
	id   uint64
	name string
	pods podSet
}

// nodeCounts counts, sorted by node id. A slice and not a map: most objects
// concern a handful of nodes, and a map costs ten times the memory there.
type nodeCounts []nodeCount

type nodeCount struct {
	node *node
	n    int
}

func (c nodeCounts) find(n *node) (int, bool) {
	return slices.BinarySearchFunc(c, n, func(e nodeCount, n *node) int { return cmp.Compare(e.node.id, n.id) })
}

// has reports whether any pod on the node counts.
func (c nodeCounts) has(n *node) bool {
	_, ok := c.find(n)
	return ok
}

// inc reports whether the node is new.
func (c *nodeCounts) inc(n *node) bool {
	i, ok := c.find(n)
	if ok {
		(*c)[i].n++
		return false
	}
	*c = slices.Insert(*c, i, nodeCount{n, 1})
	return true
}

// dec reports whether the node is gone.
func (c *nodeCounts) dec(n *node) bool {
	i, _ := c.find(n)
	if (*c)[i].n--; (*c)[i].n > 0 {
		return false
	}
	*c = slices.Delete(*c, i, i+1)
	return true
}

// podSet is a set of pods. Each pod knows its place in each of the sets it can
// be in, so adding and removing cost nothing and a member 8 bytes.
type podSet struct {
	slot setSlot
	pods []*pod
}

// setSlot tells the sets apart that one pod is in at the same time.
type setSlot int

const (
	inNode setSlot = iota
	inNamespace
	inOwner
	setSlots
)

func (s *podSet) add(p *pod) {
	p.place[s.slot] = int32(len(s.pods)) //nolint:gosec // a set of 2^31 pods does not fit a cluster
	s.pods = append(s.pods, p)
}

func (s *podSet) remove(p *pod) {
	i, last := p.place[s.slot], len(s.pods)-1
	s.pods[i] = s.pods[last]
	s.pods[i].place[s.slot] = i
	s.pods[last] = nil
	s.pods = s.pods[:last]
}
