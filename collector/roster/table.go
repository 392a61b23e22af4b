package roster

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"
)

// table holds the pods. Nearly all pods of a cluster are ordinary: of those it
// keeps a record of 48 bytes without pointers of its own, and two small
// entries of maps. The UID's bytes are the index's.
type table struct {
	index   map[string]uint32       // of the records, by UID
	holders holders                 // by address: the pod that took it last
	earlier map[[16]byte][]uint32   // by address: the others that claim it, in the order in which they did
	more    map[uint32][]netip.Addr // the addresses of a pod after its first
	marked  map[string]*Pod         // by UID: all of those of which more is of interest
	chunks  []*[chunk]record
	used    uint32 // records handed out so far
	free    []uint32
	// taken, unless it is nil, is told of each address that has another holder.
	taken func(address [16]byte, node string)
}

const chunk = 512

// record is where a pod is.
type record struct {
	uid      string
	address  [16]byte // its first, zero if it has none
	node     unique.Handle[string]
	network  bool // the host's
	finished bool
}

func newTable() table {
	return table{
		index: map[string]uint32{}, holders: holders{map[[4]byte]uint32{}, map[[16]byte]uint32{}}, earlier: map[[16]byte][]uint32{},
		more: map[uint32][]netip.Addr{}, marked: map[string]*Pod{},
	}
}

func (t *table) record(i uint32) *record { return &t.chunks[i/chunk][i%chunk] }

// claim is what a pod claims, to be done after others.
type claim struct {
	address [16]byte
	pod     uint32
	created time.Time
}

// apply takes a pod in and reports whether that changed anything.
func (t *table) apply(p Pod) bool {
	changed, claims := t.put(&p)
	for _, c := range claims {
		t.take(c)
	}
	return changed
}

// put writes a pod down, gives up what it claimed and claims no more, and
// returns what it claims anew.
func (t *table) put(p *Pod) (changed bool, claims []claim) {
	i, known := t.index[p.UID]
	if !known {
		i = t.allot()
		t.index[p.UID] = i
		*t.record(i) = record{uid: p.UID, node: unique.Make("")}
	}
	r := t.record(i)
	next := record{uid: r.uid, node: r.node, network: p.HostNetwork, finished: p.Finished}
	if r.node.Value() != p.Node {
		next.node = unique.Make(p.Node)
	}
	if len(p.Addresses) > 0 {
		next.address = key(p.Addresses[0])
	}
	rest := p.Addresses[min(1, len(p.Addresses)):]
	if known && *r == next && slices.Equal(rest, t.more[i]) { // as nearly always
		return t.mark(p, r.uid), nil
	}
	before := t.claimed(i)
	*r = next
	if len(rest) == 0 {
		delete(t.more, i)
	} else {
		t.more[i] = rest
	}
	after := t.claimed(i)
	for _, a := range before {
		if !slices.Contains(after, a) {
			t.release(a, i)
		}
	}
	for _, a := range after {
		if !slices.Contains(before, a) {
			claims = append(claims, claim{a, i, p.Created})
		}
	}
	t.mark(p, r.uid)
	return true, claims
}

// mark keeps all of a pod of which more is of interest. Whether that changed
// anything is not looked at closely: such pods are few.
func (t *table) mark(p *Pod, uid string) bool {
	if !p.marked() {
		_, was := t.marked[uid]
		delete(t.marked, uid)
		return was
	}
	whole := *p
	t.marked[uid] = &whole
	return true
}

// remove takes a pod out and reports whether it was there.
func (t *table) remove(uid string) bool {
	i, ok := t.index[uid]
	if !ok {
		return false
	}
	for _, a := range t.claimed(i) {
		t.release(a, i)
	}
	*t.record(i) = record{}
	t.free = append(t.free, i)
	delete(t.index, uid)
	delete(t.more, i)
	delete(t.marked, uid)
	return true
}

// replace makes the pods the only ones. Of those that claim an address for the
// first time, the one that was made last takes it.
func (t *table) replace(pods iter.Seq[Pod]) {
	var claims []claim
	stays := make(map[string]struct{}, len(t.index))
	known := len(t.index) > 0
	for p := range pods {
		_, more := t.put(&p)
		claims = append(claims, more...)
		if known {
			stays[p.UID] = struct{}{}
		}
	}
	if known {
		for uid := range t.index {
			if _, ok := stays[uid]; !ok {
				t.remove(uid)
			}
		}
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(a.created.Compare(b.created), strings.Compare(t.record(a.pod).uid, t.record(b.pod).uid))
	})
	for _, c := range claims {
		t.take(c)
	}
}

// take makes the pod the address' holder.
func (t *table) take(c claim) {
	if holder, ok := t.holders.get(c.address); ok {
		t.earlier[c.address] = append(t.earlier[c.address], holder)
	}
	t.hold(c.address, c.pod)
}

// hold writes the address' holder down.
func (t *table) hold(a [16]byte, i uint32) {
	t.holders.set(a, i)
	if t.taken != nil {
		t.taken(a, t.record(i).node.Value())
	}
}

// release takes back a pod's claim.
func (t *table) release(a [16]byte, i uint32) {
	others := t.earlier[a]
	n := len(others)
	switch holder, ok := t.holders.get(a); {
	case !ok || holder != i:
		others = slices.DeleteFunc(others, func(o uint32) bool { return o == i })
	case n == 0:
		t.holders.drop(a)
	default:
		t.hold(a, others[n-1])
		others = others[:n-1]
	}
	if len(others) == 0 {
		delete(t.earlier, a)
	} else {
		t.earlier[a] = others
	}
}

// claimed returns the addresses that a pod claims.
func (t *table) claimed(i uint32) [][16]byte {
	r := t.record(i)
	if r.network || r.finished || r.address == [16]byte{} {
		return nil
	}
	all := [][16]byte{r.address}
	for _, a := range t.more[i] {
		if k := key(a); !slices.Contains(all, k) {
			all = append(all, k)
		}
	}
	return all
}

// holder is Roster.Holder.
func (t *table) holder(a netip.Addr) (uid, node string, interesting, ok bool) {
	i, ok := t.holders.get(key(a))
	if !ok {
		return "", "", false, false
	}
	r := t.record(i)
	p := t.marked[r.uid]
	return r.uid, r.node.Value(), p != nil && p.Subscribes(), true
}

func (t *table) held(a netip.Addr) bool {
	_, ok := t.holders.get(key(a))
	return ok
}

// all goes through the addresses that pods hold, with the names of their nodes.
func (t *table) all() iter.Seq2[[16]byte, string] {
	return func(yield func([16]byte, string) bool) {
		for a, i := range t.holders.all() {
			if !yield(a, t.record(i).node.Value()) {
				return
			}
		}
	}
}

// pod is Roster.Pod.
func (t *table) pod(uid string) (Pod, bool) {
	if p := t.marked[uid]; p != nil {
		return *p, true
	}
	i, ok := t.index[uid]
	if !ok {
		return Pod{}, false
	}
	r := t.record(i)
	p := Pod{UID: r.uid, Node: r.node.Value(), HostNetwork: r.network, Finished: r.finished}
	if r.address != [16]byte{} {
		p.Addresses = append([]netip.Addr{netip.AddrFrom16(r.address).Unmap()}, t.more[i]...)
	}
	return p, true
}

// allot returns the number of a record that is not used.
func (t *table) allot() uint32 {
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		return i
	}
	if t.used%chunk == 0 {
		t.chunks = append(t.chunks, new([chunk]record))
	}
	t.used++
	return t.used - 1
}

// holders is a map by address. Most are of IPv4, which take half of what the
// others take.
type holders struct {
	four map[[4]byte]uint32
	six  map[[16]byte]uint32
}

func (h holders) get(a [16]byte) (i uint32, ok bool) {
	if b := netip.AddrFrom16(a); b.Is4In6() {
		i, ok = h.four[b.As4()]
	} else {
		i, ok = h.six[a]
	}
	return i, ok
}

func (h holders) set(a [16]byte, i uint32) {
	if b := netip.AddrFrom16(a); b.Is4In6() {
		h.four[b.As4()] = i
	} else {
		h.six[a] = i
	}
}

func (h holders) drop(a [16]byte) {
	if b := netip.AddrFrom16(a); b.Is4In6() {
		delete(h.four, b.As4())
	} else {
		delete(h.six, a)
	}
}

func (h holders) all() iter.Seq2[[16]byte, uint32] {
	return func(yield func([16]byte, uint32) bool) {
		for a, i := range h.four {
			if !yield(netip.AddrFrom4(a).As16(), i) {
				return
			}
		}
		for a, i := range h.six {
			if !yield(a, i) {
				return
			}
		}
	}
}

// key is an address in the one form that is looked up.
func key(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return plain(a).As16()
}
