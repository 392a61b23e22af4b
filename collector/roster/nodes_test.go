package roster_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/metawire/metawire/collector/roster"
)

// ranged is a node with a range of pod addresses.
func ranged(name, cidr string) roster.Node {
	n := roster.Node{Name: name, UID: "uid-" + name}
	if cidr != "" {
		n.CIDRs = []netip.Prefix{netip.MustParsePrefix(cidr)}
	}
	return n
}

// TestRangesTell: one pod with an address of another node's range says that the
// network gives addresses without regard to ranges, as long as it is there.
func TestRangesTell(t *testing.T) {
	a, b := ranged("a", "10.1.0.0/24"), ranged("b", "10.2.0.0/24")
	stray := pod("stray", "a", "10.2.0.5")
	nodes := func(all ...roster.Node) func(*roster.Roster) {
		return func(r *roster.Roster) { r.ReplaceNodes(all) }
	}
	apply := func(p roster.Pod) func(*roster.Roster) { return func(r *roster.Roster) { r.ApplyPod(p) } }
	for name, c := range map[string]struct {
		steps []func(*roster.Roster)
		want  bool
	}{
		"no pods":                      {nil, true},
		"a pod in its range":           {[]func(*roster.Roster){apply(pod("p", "a", "10.1.0.5"))}, true},
		"a pod in no range":            {[]func(*roster.Roster){apply(pod("p", "a", "172.16.0.5"))}, true},
		"a stray":                      {[]func(*roster.Roster){apply(stray)}, false},
		"its second address":           {[]func(*roster.Roster){apply(pod("p", "a", "10.1.0.5", "10.2.0.5"))}, false},
		"not bound yet":                {[]func(*roster.Roster){apply(pod("p", "", "10.2.0.5"))}, true},
		"of a node that is gone":       {[]func(*roster.Roster){apply(pod("p", "c", "10.2.0.5"))}, true},
		"host network":                 {[]func(*roster.Roster){apply(with(stray, func(p *roster.Pod) { p.HostNetwork = true }))}, true},
		"listed":                       {[]func(*roster.Roster){func(r *roster.Roster) { r.ReplacePods(slices.Values([]roster.Pod{stray})) }}, false},
		"it is gone":                   {[]func(*roster.Roster){apply(stray), func(r *roster.Roster) { r.DeletePod("stray") }}, true},
		"it is gone, there is another": {[]func(*roster.Roster){apply(stray), apply(pod("q", "b", "10.1.0.9")), func(r *roster.Roster) { r.DeletePod("stray") }}, false},
		"one that was hidden":          {[]func(*roster.Roster){apply(stray), apply(pod("p", "b", "10.2.0.5")), func(r *roster.Roster) { r.DeletePod("p") }}, false},
		"the range comes later":        {[]func(*roster.Roster){nodes(a), apply(stray), func(r *roster.Roster) { r.ApplyNode(b) }}, false},
		"its node comes later":         {[]func(*roster.Roster){nodes(b), apply(stray), func(r *roster.Roster) { r.ApplyNode(a) }}, false},
		"the range goes":               {[]func(*roster.Roster){apply(stray), func(r *roster.Roster) { r.DeleteNode("uid-b") }}, true},
		"the range is its own node's":  {[]func(*roster.Roster){apply(stray), nodes(ranged("a", "10.2.0.0/24"), ranged("b", ""))}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := roster.New()
			r.ReplaceNodes([]roster.Node{a, b})
			for _, step := range c.steps {
				step(r)
			}
			free := netip.MustParseAddr("10.2.0.77") // that no pod holds
			_, inRange := r.OnNode("b", free)
			if got := r.RangesTell(); got != c.want || inRange && !c.want {
				t.Errorf("they tell: %t, want %t; the address is in b's range: %t", got, c.want, inRange)
			}
			if of, _, ok := r.NodeOf(free); ok && !c.want {
				t.Errorf("it is said to be of %q", of)
			}
		})
	}
}

// TestTwoNodesWithOneAddress: one that is gone leaves it to the other.
func TestTwoNodesWithOneAddress(t *testing.T) {
	r, a := roster.New(), netip.MustParseAddr("192.0.2.1")
	for _, name := range []string{"a", "b"} {
		r.ApplyNode(roster.Node{Name: name, UID: name, Addresses: []netip.Addr{a, a}})
	}
	r.DeleteNode("a")
	own, _ := r.OnNode("b", a)
	if of, _, _ := r.NodeOf(a); of != "b" || !own {
		t.Errorf("of %q, b's: %t", of, own)
	}
	r.DeleteNode("b")
	if of, _, ok := r.NodeOf(a); ok {
		t.Errorf("still of %q", of)
	}
}

func TestNamespaces(t *testing.T) {
	r := roster.New()
	has := func(name, label string) bool {
		n, ok := r.Namespace(name)
		return ok && n.Labels["l"] == label
	}
	space := func(name, uid, label string) roster.Namespace {
		return roster.Namespace{Name: name, UID: uid, Labels: map[string]string{"l": label}}
	}
	r.ReplaceNamespaces([]roster.Namespace{space("gone", "0", "x")})
	r.ReplaceNamespaces([]roster.Namespace{space("a", "1", "x")})
	<-r.SyncedNamespaces()
	if has("gone", "x") || !has("a", "x") {
		t.Error("the list does not count")
	}
	changed := r.Changed()
	r.ApplyNamespace(space("a", "1", "x"))
	select {
	case <-changed:
		t.Error("woken by nothing new")
	default:
	}
	r.ApplyNamespace(space("a", "1", "y"))
	<-changed
	r.ApplyNamespace(space("a", "2", "z")) // made again
	r.DeleteNamespace("1")
	if !has("a", "z") {
		t.Error("the new one went with the old one")
	}
	r.DeleteNamespace("2")
	if _, ok := r.Namespace("a"); ok {
		t.Error("still there")
	}
}
