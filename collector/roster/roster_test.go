package roster_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/wiring"
)

func addrs(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

func pod(uid, node string, addresses ...string) roster.Pod {
	return roster.Pod{UID: uid, Node: node, Addresses: addrs(addresses...)}
}

func with(p roster.Pod, change func(*roster.Pod)) roster.Pod {
	change(&p)
	return p
}

// TestHolder: who holds 10.0.0.1 after pods have come, changed and gone.
func TestHolder(t *testing.T) {
	const address = "10.0.0.1"
	apply := func(p roster.Pod) func(*roster.Roster) { return func(r *roster.Roster) { r.ApplyPod(p) } }
	remove := func(uid string) func(*roster.Roster) { return func(r *roster.Roster) { r.DeletePod(uid) } }
	replace := func(pods ...roster.Pod) func(*roster.Roster) {
		return func(r *roster.Roster) { r.ReplacePods(slices.Values(pods)) }
	}
	a, b := pod("a", "n1", address), pod("b", "n2", address)
	finished := with(b, func(p *roster.Pod) { p.Finished = true })
	young := with(a, func(p *roster.Pod) { p.Created = time.Unix(9, 0) })
	old := with(b, func(p *roster.Pod) { p.Created = time.Unix(1, 0) })
	for name, c := range map[string]struct {
		steps []func(*roster.Roster)
		want  string // UID and node
	}{
		"nobody":                            {nil, ""},
		"a pod":                             {[]func(*roster.Roster){apply(a)}, "a n1"},
		"a pod without an address yet":      {[]func(*roster.Roster){apply(pod("a", "n1"))}, ""},
		"its second address":                {[]func(*roster.Roster){apply(pod("a", "n1", "fd00::1", address))}, "a n1"},
		"written as IPv6":                   {[]func(*roster.Roster){apply(pod("a", "n1", "::ffff:10.0.0.1"))}, "a n1"},
		"host network":                      {[]func(*roster.Roster){apply(with(a, func(p *roster.Pod) { p.HostNetwork = true }))}, ""},
		"finished":                          {[]func(*roster.Roster){apply(b), apply(finished)}, ""},
		"finished when taken again":         {[]func(*roster.Roster){apply(b), apply(finished), apply(a)}, "a n1"},
		"another address now":               {[]func(*roster.Roster){apply(a), apply(pod("a", "n1", "10.0.0.2"))}, ""},
		"deleted":                           {[]func(*roster.Roster){apply(a), remove("a")}, ""},
		"taken from one that goes":          {[]func(*roster.Roster){apply(a), apply(b)}, "b n2"},
		"the one that goes speaks again":    {[]func(*roster.Roster){apply(a), apply(b), apply(a)}, "b n2"},
		"the one that goes is gone":         {[]func(*roster.Roster){apply(a), apply(b), remove("a")}, "b n2"},
		"the one that took it is gone":      {[]func(*roster.Roster){apply(a), apply(b), remove("b")}, "a n1"},
		"listed: the younger took it":       {[]func(*roster.Roster){replace(young, old)}, "a n1"},
		"listed: the younger took it, last": {[]func(*roster.Roster){replace(old, young)}, "a n1"},
		"listed again":                      {[]func(*roster.Roster){apply(young), apply(old), replace(old, young)}, "b n2"},
		"not listed any more":               {[]func(*roster.Roster){apply(a), replace(pod("c", "n3", "10.0.0.3"))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := roster.New()
			for _, step := range c.steps {
				step(r)
			}
			got := ""
			if uid, node, _, ok := r.Holder(netip.MustParseAddr("::ffff:" + address)); ok {
				got = uid + " " + node
			}
			if got != c.want {
				t.Errorf("held by %q, want %q", got, c.want)
			}
		})
	}
}

// TestPod: all is kept of the pods that matter, of the others where they are.
func TestPod(t *testing.T) {
	whole := roster.Pod{
		UID: "u", Namespace: "ns", Name: "p", Node: "n", Addresses: addrs("10.0.0.1", "fd00::1"), Running: true,
		Created: time.Unix(5, 0), Owner: wiring.Owner{Kind: "DaemonSet", Name: "falco"},
	}
	ordinary := roster.Pod{UID: "u", Node: "n", Addresses: addrs("10.0.0.1", "fd00::1")}
	for name, c := range map[string]struct {
		change func(*roster.Pod)
		whole  bool
	}{
		"ordinary":       {func(*roster.Pod) {}, false},
		"opted out":      {func(p *roster.Pod) { p.OptedOut = true }, false},
		"Falco":          {func(p *roster.Pod) { p.Falco = true }, true},
		"opted in":       {func(p *roster.Pod) { p.OptedIn = true }, true},
		"looked at":      {func(p *roster.Pod) { p.Status = &wiring.Status{Outcome: wiring.StoodDown} }, true},
		"init container": {func(p *roster.Pod) { p.Init.State = wiring.InitWaiting }, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, given := roster.New(), with(whole, c.change)
			r.ApplyPod(given)
			want := ordinary
			if c.whole {
				want = given
			}
			got, ok := r.Pod("u")
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); !ok || diff != "" {
				t.Errorf("known: %t (-want +got):\n%s", ok, diff)
			}
			_, _, interesting, _ := r.Holder(netip.MustParseAddr("fd00::1"))
			if subscribes := given.Falco || given.OptedIn; interesting != subscribes || len(r.Subscribers()) == 1 != subscribes {
				t.Errorf("interesting: %t, subscribers: %d, want %t", interesting, len(r.Subscribers()), subscribes)
			}
			r.ApplyPod(whole) // the mark is gone
			if got, _ := r.Pod("u"); got.Name != "" || len(r.Subscribers()) > 0 {
				t.Errorf("still whole: %+v", got)
			}
			r.DeletePod("u")
			if _, ok := r.Pod("u"); ok {
				t.Error("known after it was deleted")
			}
		})
	}
}

func TestNodes(t *testing.T) {
	node := func(name, uid, address, cidr string) roster.Node {
		return roster.Node{Name: name, UID: uid, Addresses: addrs(address), CIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}}
	}
	r := roster.New()
	r.ReplaceNodes([]roster.Node{node("gone", "0", "192.0.2.9", "10.9.0.0/24")})
	r.ReplaceNodes([]roster.Node{node("a", "1", "192.0.2.1", "10.1.0.0/24")})
	r.ApplyNode(node("b", "2", "192.0.2.2", "10.2.0.0/24"))
	r.ApplyNode(node("b", "3", "192.0.2.3", "10.3.0.0/24")) // made again
	r.DeleteNode("2")
	r.ApplyPod(pod("p", "a", "10.1.0.5"))
	for _, c := range []struct {
		node, address string
		own, inRange  bool
		of            string
	}{
		{"a", "192.0.2.1", true, false, "a"},
		{"a", "::ffff:192.0.2.1", true, false, "a"},
		{"a", "10.1.0.1", false, true, "a"},
		{"a", "::ffff:10.1.0.1", false, true, "a"},
		{"a", "10.1.0.5", false, false, ""}, // a pod's
		{"a", "10.3.0.1", false, false, "b"},
		{"a", "192.0.2.3", false, false, "b"},
		{"b", "192.0.2.3", true, false, "b"},
		{"b", "192.0.2.2", false, false, ""}, // its predecessor's
		{"gone", "192.0.2.9", false, false, ""},
		{"a", "8.8.8.8", false, false, ""},
	} {
		own, inRange := r.OnNode(c.node, netip.MustParseAddr(c.address))
		of, _, _ := r.NodeOf(netip.MustParseAddr(c.address))
		if own != c.own || inRange != c.inRange || of != c.of {
			t.Errorf("%s on %s: own %t, in its range %t, of %q; want %t, %t, %q", c.address, c.node, own, inRange, of, c.own, c.inRange, c.of)
		}
	}
	r.DeleteNode("3")
	r.DeleteNode("2") // the older one's deletion comes last
	if _, ok := r.Node("b"); ok {
		t.Error("b is still there")
	}
}

func TestTrusted(t *testing.T) {
	wired := func(uid string, cas ...string) roster.Pod {
		return roster.Pod{UID: uid, Falco: true, Status: &wiring.Status{Outcome: wiring.Wired, CAs: cas}}
	}
	for name, c := range map[string]struct {
		pods []roster.Pod
		want bool
	}{
		"nobody is wired":       {nil, true},
		"every pod":             {[]roster.Pod{wired("a", "old", "new"), wired("b", "new")}, true},
		"one does not":          {[]roster.Pod{wired("a", "old"), wired("b", "new")}, false},
		"that one is finished":  {[]roster.Pod{with(wired("a", "old"), func(p *roster.Pod) { p.Finished = true }), wired("b", "new")}, true},
		"that one has no TLS":   {[]roster.Pod{wired("a"), wired("b", "new")}, true},
		"that one is not wired": {[]roster.Pod{with(wired("a", "old"), func(p *roster.Pod) { p.Status.Outcome = wiring.StoodDown })}, true},
		"another subscriber":    {[]roster.Pod{with(wired("a", "old"), func(p *roster.Pod) { p.Falco, p.Status.Outcome = false, wiring.Subscriber })}, false},
		"never looked at":       {[]roster.Pod{{UID: "a", Falco: true}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := roster.New()
			for _, p := range c.pods {
				r.ApplyPod(p)
			}
			if r.Trusted("new") {
				t.Error("trusted before the pods are known")
			}
			r.ReplacePods(slices.Values(c.pods))
			if got := r.Trusted("new"); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
		})
	}
}

// TestChanged: who waits is woken by what it may be waiting for, and not by
// every event of a busy cluster.
func TestChanged(t *testing.T) {
	p := pod("p", "n", "10.0.0.1")
	n := roster.Node{Name: "n", UID: "1", Addresses: addrs("192.0.2.1")}
	for name, c := range map[string]struct {
		change func(*roster.Roster)
		want   bool
	}{
		"a pod as before":  {func(r *roster.Roster) { r.ApplyPod(p) }, false},
		"a node as before": {func(r *roster.Roster) { r.ApplyNode(n) }, false},
		"unknown pod gone": {func(r *roster.Roster) { r.DeletePod("x") }, false},
		"a new pod":        {func(r *roster.Roster) { r.ApplyPod(pod("q", "n")) }, true},
		"an address more":  {func(r *roster.Roster) { r.ApplyPod(pod("p", "n", "10.0.0.1", "fd00::1")) }, true},
		"another address":  {func(r *roster.Roster) { r.ApplyPod(pod("p", "n", "10.0.0.2")) }, true},
		"bound":            {func(r *roster.Roster) { r.ApplyPod(pod("p", "m", "10.0.0.1")) }, true},
		"a mark":           {func(r *roster.Roster) { r.ApplyPod(with(p, func(p *roster.Pod) { p.OptedIn = true })) }, true},
		"deleted":          {func(r *roster.Roster) { r.DeletePod("p") }, true},
		"node deleted":     {func(r *roster.Roster) { r.DeleteNode("1") }, true},
		"listed":           {func(r *roster.Roster) { r.ReplacePods(slices.Values([]roster.Pod{p})) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := roster.New()
			r.ApplyPod(p)
			r.ApplyNode(n)
			changed := r.Changed()
			c.change(r)
			select {
			case <-changed:
				if !c.want {
					t.Error("woken")
				}
			default:
				if c.want {
					t.Error("not woken")
				}
			}
		})
	}
}

// TestSynced: both are told once, also after a second list.
func TestSynced(t *testing.T) {
	r := roster.New()
	for range 2 {
		r.ReplacePods(slices.Values([]roster.Pod(nil)))
		r.ReplaceNodes(nil)
	}
	<-r.SyncedPods()
	<-r.SyncedNodes()
}

// oracle answers as a roster must, by going through all it was told.
type oracle struct {
	pods   map[string]roster.Pod
	claims []claim // in the order in which they were made
}

type claim struct {
	uid     string
	address netip.Addr
}

func (o *oracle) claimed(p roster.Pod) (all []netip.Addr) {
	if p.HostNetwork || p.Finished {
		return nil
	}
	for _, a := range p.Addresses {
		all = append(all, a.Unmap())
	}
	return all
}

func (o *oracle) apply(p roster.Pod) {
	o.pods[p.UID] = p
	o.claims = slices.DeleteFunc(o.claims, func(c claim) bool {
		return c.uid == p.UID && !slices.Contains(o.claimed(p), c.address)
	})
	for _, a := range o.claimed(p) {
		if !slices.Contains(o.claims, claim{p.UID, a}) {
			o.claims = append(o.claims, claim{p.UID, a})
		}
	}
}

func (o *oracle) remove(uid string) {
	delete(o.pods, uid)
	o.claims = slices.DeleteFunc(o.claims, func(c claim) bool { return c.uid == uid })
}

func (o *oracle) replace(pods []roster.Pod) {
	for uid := range o.pods {
		if !slices.ContainsFunc(pods, func(p roster.Pod) bool { return p.UID == uid }) {
			o.remove(uid)
		}
	}
	for _, p := range slices.SortedStableFunc(slices.Values(pods), func(a, b roster.Pod) int { return a.Created.Compare(b.Created) }) {
		o.apply(p)
	}
}

func (o *oracle) holder(a netip.Addr) (uid, node string, interesting, ok bool) {
	for _, c := range slices.Backward(o.claims) {
		if c.address == a.Unmap() {
			p := o.pods[c.uid]
			return p.UID, p.Node, p.Falco || p.OptedIn, true
		}
	}
	return "", "", false, false
}

// TestHolderIsTheOracles: whatever pods come, change and go in any order.
func TestHolderIsTheOracles(t *testing.T) {
	uids := []string{"a", "b", "c", "d", "e", "f"}
	all := addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "::ffff:10.0.0.1")
	rapid.Check(t, func(t *rapid.T) {
		r, o := roster.New(), oracle{pods: map[string]roster.Pod{}}
		draw := func(uid string) roster.Pod {
			return roster.Pod{
				UID: uid, Node: rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "node"),
				Addresses:   rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 3, netip.Addr.Unmap).Draw(t, "addresses"),
				HostNetwork: rapid.IntRange(0, 5).Draw(t, "host") == 0, Finished: rapid.IntRange(0, 3).Draw(t, "finished") == 0,
				Falco: rapid.Bool().Draw(t, "falco"), OptedIn: rapid.Bool().Draw(t, "in"),
				// Distinct: between pods of one second a list does not decide.
				Created: time.Unix(int64(slices.Index(uids, uid)*7%6), 0),
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0:
				var pods []roster.Pod
				for _, uid := range rapid.SliceOfDistinct(rapid.SampledFrom(uids), rapid.ID).Draw(t, "listed") {
					pods = append(pods, draw(uid))
				}
				r.ReplacePods(slices.Values(pods))
				o.replace(pods)
			case 1, 2:
				uid := rapid.SampledFrom(uids).Draw(t, "removed")
				r.DeletePod(uid)
				o.remove(uid)
			default:
				p := draw(rapid.SampledFrom(uids).Draw(t, "applied"))
				r.ApplyPod(p)
				o.apply(p)
			}
			for _, a := range all {
				uid, node, interesting, ok := r.Holder(a)
				wantUID, wantNode, wantInteresting, want := o.holder(a)
				if uid != wantUID || node != wantNode || interesting != wantInteresting || ok != want {
					t.Fatalf("%s is held by %q on %q (%t, %t), want %q on %q (%t, %t)", a, uid, node, interesting, ok, wantUID, wantNode, wantInteresting, want)
				}
			}
			for _, uid := range uids {
				p, ok := r.Pod(uid)
				want, known := o.pods[uid]
				if ok != known || p.Node != want.Node || p.Finished != want.Finished || p.HostNetwork != want.HostNetwork || len(p.Addresses) != len(want.Addresses) {
					t.Fatalf("%s is known (%t) as %+v, want %+v (%t)", uid, ok, p, want, known)
				}
			}
		}
	})
}

// ordinaryPods is a number of pods as most are; their UIDs are the index's.
func ordinaryPods(n int) []roster.Pod {
	pods := make([]roster.Pod, n)
	for i := range pods {
		pods[i] = pod(fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012d", i), fmt.Sprintf("node-%d", i%1000), fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	return pods
}

// bytesPerPod returns what a pod costs in a roster of n, its UID left out.
func bytesPerPod(n int, fill func(*roster.Roster, []roster.Pod)) float64 {
	pods := ordinaryPods(n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := roster.New()
	fill(r, pods)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(r)
	runtime.KeepAlive(pods)
	return float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / float64(n)
}

// TestOrdinaryPodIsSmall: most of what a cluster holds are pods that nobody
// asks about.
func TestOrdinaryPodIsSmall(t *testing.T) {
	const most = 150
	if got := bytesPerPod(30_000, func(r *roster.Roster, pods []roster.Pod) { r.ReplacePods(slices.Values(pods)) }); got > most {
		t.Errorf("%.0f bytes a pod, want at most %d", got, most)
	}
}

func BenchmarkReplacePods(b *testing.B) {
	for _, n := range []int{10_000, 30_000, 50_000} {
		b.Run(fmt.Sprintf("pods=%d", n), func(b *testing.B) {
			pods := ordinaryPods(n)
			b.ReportAllocs()
			for b.Loop() {
				roster.New().ReplacePods(slices.Values(pods))
			}
			b.StopTimer()
			b.ReportMetric(bytesPerPod(n, func(r *roster.Roster, pods []roster.Pod) { r.ReplacePods(slices.Values(pods)) }), "B/pod")
		})
	}
}

func BenchmarkApplyPod(b *testing.B) {
	r, pods := roster.New(), ordinaryPods(30_000)
	r.ReplacePods(slices.Values(pods))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r.ApplyPod(pods[i%len(pods)])
		i++
	}
}
