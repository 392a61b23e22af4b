package roster

import (
	"net/netip"
	"slices"
)

// Node is a node of the cluster.
type Node struct {
	Name, UID string
	// Addresses are its own, internal and external.
	Addresses []netip.Addr
	// CIDRs are the ranges that its pods get their addresses from; none if the
	// network does not use them.
	CIDRs []netip.Prefix
}

// nodes holds the nodes, and their names by what is asked for: two may have an
// address or a range for a while, when one replaces the other.
type nodes struct {
	all    map[string]*Node // by name
	names  map[string]string
	owners map[netip.Addr][]string
	ranges map[netip.Prefix][]string
	bits   map[int]int // lengths of ranges, and how many have them: one or two
}

func newNodes() nodes {
	return nodes{
		all: map[string]*Node{}, names: map[string]string{}, owners: map[netip.Addr][]string{},
		ranges: map[netip.Prefix][]string{}, bits: map[int]int{},
	}
}

// put takes a node in.
func (n *nodes) put(node *Node) {
	n.drop(node.Name)
	n.all[node.Name], n.names[node.UID] = node, node.Name
	for _, a := range node.Addresses {
		a = plain(a)
		n.owners[a] = append(n.owners[a], node.Name)
	}
	for _, p := range node.CIDRs {
		n.ranges[p] = append(n.ranges[p], node.Name)
		n.bits[p.Bits()]++
	}
}

// drop takes the node with the name out, if there is one.
func (n *nodes) drop(name string) {
	node := n.all[name]
	if node == nil {
		return
	}
	delete(n.all, name)
	for _, a := range node.Addresses {
		without(n.owners, plain(a), name)
	}
	for _, p := range node.CIDRs {
		without(n.ranges, p, name)
		if n.bits[p.Bits()]--; n.bits[p.Bits()] == 0 {
			delete(n.bits, p.Bits())
		}
	}
}

// without takes one name away from those of the key.
func without[K comparable](m map[K][]string, key K, name string) {
	names := m[key]
	if i := slices.Index(names, name); i >= 0 {
		names = slices.Delete(names, i, i+1)
	}
	if m[key] = names; len(names) == 0 {
		delete(m, key)
	}
}

// ranging returns the names of the nodes in whose ranges the address is.
func (n *nodes) ranging(a netip.Addr) (names []string) {
	for bits := range n.bits {
		if p, err := a.Prefix(bits); err == nil {
			names = append(names, n.ranges[p]...)
		}
	}
	return names
}

// ApplyNode takes in a node's latest version.
func (r *Roster) ApplyNode(n Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.nodes.all[n.Name]; old != nil && old.UID == n.UID &&
		slices.Equal(old.Addresses, n.Addresses) && slices.Equal(old.CIDRs, n.CIDRs) {
		return // nodes report their health all the time
	}
	r.nodes.put(&n)
	r.strays.look = true
	r.broadcast()
}

// DeleteNode takes a node out. A node that was made again under the old one's
// name stays.
func (r *Roster) DeleteNode(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, ok := r.nodes.names[uid]
	if !ok {
		return
	}
	delete(r.nodes.names, uid)
	if n := r.nodes.all[name]; n != nil && n.UID == uid {
		r.nodes.drop(name)
	}
	r.strays.look = true
	r.broadcast()
}

// ReplaceNodes makes the nodes the only ones.
func (r *Roster) ReplaceNodes(nodes []Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = newNodes()
	for i := range nodes {
		r.nodes.put(&nodes[i])
	}
	r.strays.look = true
	closeOnce(r.nodesSynced)
	r.broadcast()
}

// OnNode reports whether the address is one of the node's own, and whether it
// is one of the node's range of pod addresses that no pod holds, which is how
// traffic of its host network can appear. Where RangesTell is false, nothing is
// of a range.
func (r *Roster) OnNode(node string, a netip.Addr) (isNodeAddress, inPodCIDRNotHeld bool) {
	a = plain(a)
	r.mu.RLock()
	own := slices.Contains(r.nodes.owners[a], node)
	ranged := slices.Contains(r.nodes.ranging(a), node) && !r.pods.held(a)
	r.mu.RUnlock()
	return own, ranged && r.RangesTell()
}

// NodeOf returns the node that an address which no pod holds belongs to: as its
// own, or by its range of pod addresses. Where RangesTell is false, nothing is
// of a range.
func (r *Roster) NodeOf(a netip.Addr) (node string, own, ok bool) {
	a = plain(a)
	var ranging []string
	r.mu.RLock()
	if !r.pods.held(a) {
		if owners := r.nodes.owners[a]; len(owners) > 0 {
			node, own = owners[0], true
		} else {
			ranging = r.nodes.ranging(a)
		}
	}
	r.mu.RUnlock()
	if len(ranging) > 0 && r.RangesTell() {
		node = ranging[0]
	}
	return node, own, node != ""
}

// Node returns the node with the name.
func (r *Roster) Node(name string) (Node, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := r.nodes.all[name]; n != nil {
		return *n, true
	}
	return Node{}, false
}

// strays is what is known of pods that hold addresses of other nodes' ranges.
// One is enough to know, so no more than one is remembered.
type strays struct {
	address [16]byte // a stray's, zero if none is known
	look    bool     // there may be others: all pods are to be looked at
}

// RangesTell reports whether nodes' ranges of pod addresses tell which node an
// address is on. They do not if a pod holds an address of another node's range:
// then the network gives addresses without regard to them. All pods are looked
// at for that once after nodes have changed.
func (r *Roster) RangesTell() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.strays
	if s.address != [16]byte{} {
		if i, ok := r.pods.holders.get(s.address); ok && r.stray(s.address, r.pods.record(i).node.Value()) {
			return false
		}
		*s = strays{look: true}
	}
	if !s.look {
		return true
	}
	s.look = false
	for a, node := range r.pods.all() {
		if r.stray(a, node) {
			s.address = a
			return false
		}
	}
	return true
}

// notice is told of each address that has another holder, with the lock held.
func (r *Roster) notice(a [16]byte, node string) {
	if r.strays.address == [16]byte{} && r.stray(a, node) {
		r.strays.address = a
	}
}

// stray reports whether the address, which a pod on the node holds, is of
// another node's range. The pods of a node that is gone say nothing: another
// may have its range by now.
func (r *Roster) stray(a [16]byte, node string) bool {
	if r.nodes.all[node] == nil {
		return false
	}
	in := r.nodes.ranging(netip.AddrFrom16(a).Unmap())
	return len(in) > 0 && !slices.Contains(in, node)
}
