package fanout_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/relation/relationtest"
)

// client is what Falco's plugin does with a stream: it keeps its table when the
// stream ends and forgets an entry only when it is told to.
type client struct {
	node  string
	table map[string]*metadata.Event

	subscriber *fanout.Subscriber
	told       map[string]*metadata.Event // in this stream
}

func (c *client) connect(h *fanout.Hub, kinds []relation.Kind) {
	if c.subscriber != nil {
		c.subscriber.Close()
	}
	c.subscriber, c.told = h.Subscribe(c.node, kinds), map[string]*metadata.Event{}
}

// receive takes up to n messages, holds each against the contract, and reports
// how many there were.
func (c *client) receive(t fataler, n int) int {
	msgs := c.subscriber.Take(nil, n)
	if len(msgs) > n {
		t.Fatalf("took %d messages, asked for %d", len(msgs), n)
	}
	for _, m := range msgs {
		e, wire := &metadata.Event{}, m.Event
		if m.Reason == metadata.Update {
			head, rest := metadata.AsUpdate(wire)
			wire = slices.Concat(head, rest)
		}
		if err := proto.Unmarshal(wire, e); err != nil {
			t.Fatalf("unmarshal: %v", err)
		}
		last := c.told[e.Uid]
		switch e.Reason {
		case metadata.Create:
			if last != nil {
				t.Fatalf("Create of %s, which this stream has", e.Uid)
			}
			if e.Kind == "Pod" {
				c.checkOrder(t, e)
			}
			c.table[e.Uid], c.told[e.Uid] = e, e
		case metadata.Update:
			if last == nil {
				t.Fatalf("Update of %s, which this stream has not", e.Uid)
			}
			was := proto.CloneOf(last)
			was.Reason = metadata.Update
			if proto.Equal(was, e) {
				t.Fatalf("Update of %s without a change", e.Uid)
			}
			c.table[e.Uid], c.told[e.Uid] = e, e
		case metadata.Delete:
			if diff := cmp.Diff(&metadata.Event{Reason: metadata.Delete, Uid: e.Uid, Kind: e.Kind}, e, protocmp.Transform()); diff != "" {
				t.Fatalf("a Delete carries more than reason, uid and kind: %s", diff)
			}
			delete(c.table, e.Uid)
			delete(c.told, e.Uid)
		default:
			t.Fatalf("reason %q", e.Reason)
		}
	}
	return len(msgs)
}

// checkOrder: a pod's namespace and services were told before it, as far as
// they concern the node.
func (c *client) checkOrder(t fataler, pod *metadata.Event) {
	for _, kind := range []string{"Namespace", "Service"} {
		for _, uid := range pod.Refs.Resources[kind].GetList() {
			if c.told[uid] == nil {
				t.Fatalf("pod %s was told before its %s %s", pod.Uid, kind, uid)
			}
		}
	}
}

func (c *client) drain(t fataler) {
	for c.receive(t, 7) > 0 { //nolint:revive // until nothing is pending
	}
}

type fataler interface {
	Fatalf(format string, args ...any)
}

// replica is a hub that is behind the world by what is in its backlog.
type replica struct {
	hub     *fanout.Hub
	backlog []relationtest.Event
}

func (r *replica) deliver(n int) {
	for _, e := range r.backlog[:n] {
		if e.Deleted {
			r.hub.Delete(e.Object.Kind, e.Object.UID)
		} else {
			r.hub.Apply(e.Object)
		}
	}
	r.backlog = r.backlog[n:]
}

// TestReplayedStreamEqualsTheView: whatever happens to the objects, and however
// slowly a client reads, connects anew and changes between replicas, what it
// holds in the end is the view of its node.
func TestReplayedStreamEqualsTheView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := relationtest.NewWorld()
		replicas := []*replica{{hub: newHub()}, {hub: newHub()}}
		var clients []*client
		for _, n := range append(w.Nodes(), "a") {
			c := &client{node: n, table: map[string]*metadata.Event{}}
			c.connect(replicas[0].hub, relation.Kinds())
			clients = append(clients, c)
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			events := w.Step(t)
			for _, r := range replicas {
				r.backlog = append(r.backlog, events...)
				r.deliver(rapid.IntRange(0, len(r.backlog)).Draw(t, "deliver"))
			}
			c := rapid.SampledFrom(clients).Draw(t, "client")
			if rapid.IntRange(0, 9).Draw(t, "reconnect") == 0 {
				c.connect(rapid.SampledFrom(replicas).Draw(t, "replica").hub, relation.Kinds())
			}
			c.receive(t, rapid.IntRange(0, 6).Draw(t, "receive"))
		}
		for _, r := range replicas {
			r.deliver(len(r.backlog))
		}
		for _, c := range clients {
			c.drain(t)
			for _, e := range c.table {
				e.Reason = metadata.Create
			}
			if diff := cmp.Diff(w.View(c.node), c.table, protocmp.Transform()); diff != "" {
				t.Fatalf("node %s (-want +got):\n%s", c.node, diff)
			}
		}
	})
}

// TestReplaceEqualsTheHistory: a relist after a gap ends in the same state as
// the events would have.
func TestReplaceEqualsTheHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := relationtest.NewWorld(), newHub()
		c := &client{node: "a", table: map[string]*metadata.Event{}}
		c.connect(h, relation.Kinds())
		for range rapid.IntRange(1, 5).Draw(t, "gaps") {
			for range rapid.IntRange(1, 30).Draw(t, "steps") {
				w.Step(t)
			}
			for _, k := range append(relation.Kinds(), relation.EndpointSlice) {
				h.Replace(k, w.Relist(k))
			}
			c.drain(t)
			for _, e := range c.table {
				e.Reason = metadata.Create
			}
			if diff := cmp.Diff(w.View("a"), c.table, protocmp.Transform()); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
		}
	})
}

func TestOnlyWantedKinds(t *testing.T) {
	h := newHub()
	c := &client{node: "a", table: map[string]*metadata.Event{}}
	c.connect(h, []relation.Kind{relation.Namespace})
	h.Apply(object(relation.Namespace, "", "n", "ns"))
	h.Apply(pod("p1"))
	c.drain(t)
	h.Delete(relation.Pod, "p1")
	h.Apply(pod("p2"))
	c.drain(t)
	if diff := cmp.Diff([]string{"ns"}, uids(c.table)); diff != "" {
		t.Error(diff)
	}
	c.connect(h, nil)
	if n := c.receive(t, 10); n != 0 {
		t.Errorf("a subscriber of no kinds received %d messages", n)
	}
}

// TestOneEncodingPerVersion counts encodings, not calls: many subscribers, many
// versions.
func TestOneEncodingPerVersion(t *testing.T) {
	r := prometheus.NewRegistry()
	h := fanout.NewHub(fanout.NewMetrics(r), fanout.Options{})
	clients := make([]*client, 50)
	for i := range clients {
		clients[i] = &client{node: "a", table: map[string]*metadata.Event{}}
		clients[i].connect(h, relation.Kinds())
	}
	const versions = 20
	for v := range versions {
		p := pod("p1")
		p.Event = metadata.Encode("Pod", metadata.Meta{Name: fmt.Sprint(v), UID: "p1"}, &metadata.Status{})
		h.Apply(p)
		h.Apply(p) // the same version again
		for _, c := range clients {
			if n := c.receive(t, 10); n != 1 {
				t.Fatalf("version %d: %d messages, want 1", v, n)
			}
		}
	}
	expect(t, r, "metawire_stream_encodings_total", versions)
}

// TestStuckSubscriberIsBounded: pods come and go while a subscriber does not
// read; what is held for it does not grow, and it is right when it reads again,
// even though the tombstones of what it held are long gone.
func TestStuckSubscriberIsBounded(t *testing.T) {
	r := prometheus.NewRegistry()
	h := fanout.NewHub(fanout.NewMetrics(r), fanout.Options{TombstonesPerNode: 5})
	stuck := &client{node: "a", table: map[string]*metadata.Event{}}
	for i := range 10 {
		h.Apply(pod(fmt.Sprintf("first-%d", i)))
	}
	stuck.connect(h, relation.Kinds())
	stuck.receive(t, 5)
	for i := range 10 {
		h.Delete(relation.Pod, fmt.Sprintf("first-%d", i))
	}
	for i := range 10_000 {
		h.Apply(pod(fmt.Sprintf("pod-%d", i)))
		if i >= 10 {
			h.Delete(relation.Pod, fmt.Sprintf("pod-%d", i-10))
		}
	}
	if n := value(t, r, "metawire_stream_pending_objects_max"); n > 15 {
		t.Errorf("%v objects pending, want at most the node's 10 and 5 tombstones", n)
	}
	stuck.drain(t)
	if len(stuck.table) != 10 || stuck.table["pod-9999"] == nil {
		t.Errorf("holds %v, want the 10 pods that are left", uids(stuck.table))
	}
}

func TestTombstonesAreBoundedInNumberAndTime(t *testing.T) {
	now := time.Now()
	r := prometheus.NewRegistry()
	h := fanout.NewHub(fanout.NewMetrics(r), fanout.Options{
		TombstoneAge: time.Hour, TombstonesPerNode: 100, Now: func() time.Time { return now }})
	leave := func(uid string) {
		h.Apply(pod(uid))
		h.Delete(relation.Pod, uid)
	}
	replayed := func() int { return len(h.Subscribe("a", relation.Kinds()).Take(nil, 1000)) }
	for i := range 150 {
		leave(fmt.Sprint(i))
	}
	if n := replayed(); n != 100 {
		t.Errorf("%d Deletes replayed, want the newest 100", n)
	}
	h.Apply(pod("149")) // it is back
	if n := replayed(); n != 99+1 {
		t.Errorf("%d messages, want 99 Deletes and one Create", n)
	}
	for range 1000 { // the same pod leaves and returns: one tombstone
		leave("149")
	}
	expect(t, r, "metawire_stream_tombstones", 100)
	now = now.Add(time.Hour + time.Second)
	h.Sweep()
	expect(t, r, "metawire_stream_tombstones", 0)
	if n := replayed(); n != 0 {
		t.Errorf("%d Deletes replayed after an hour", n)
	}
}

func TestTombstonesOfAllNodesAreBounded(t *testing.T) {
	r := prometheus.NewRegistry()
	h := fanout.NewHub(fanout.NewMetrics(r), fanout.Options{Tombstones: 100})
	for i := range 1000 {
		p := pod(fmt.Sprint(i))
		p.Node = fmt.Sprint("node-", i%20)
		h.Apply(p)
		h.Delete(relation.Pod, p.UID)
	}
	if n := value(t, r, "metawire_stream_tombstones"); n < 50 || n > 200 {
		t.Errorf("%v tombstones, want about 100", n)
	}
	if n := value(t, r, "metawire_stream_tombstones_evicted_total"); n < 800 {
		t.Errorf("%v evictions counted, want those of 1,000 that are gone", n)
	}
}

// TestOnlyChangesHaveALatency: what a subscriber is told because it came is not
// late.
func TestOnlyChangesHaveALatency(t *testing.T) {
	h := newHub()
	h.Apply(pod("stays"))
	h.Apply(pod("left"))
	h.Delete(relation.Pod, "left")
	s := h.Subscribe("a", relation.Kinds())
	for _, m := range s.Take(nil, 10) {
		if !m.Since.IsZero() {
			t.Errorf("%s has a latency", m.Reason)
		}
	}
	h.Delete(relation.Pod, "stays")
	if m := s.Take(nil, 10); len(m) != 1 || m[0].Since.IsZero() {
		t.Errorf("%+v, want one Delete with its time", m)
	}
}

func TestHubForgetsNodes(t *testing.T) {
	h := newHub()
	for i := range 10 {
		h.Subscribe(fmt.Sprintf("node-%d", i), relation.Kinds()).Close()
	}
	if n := h.Nodes(); n != 0 {
		t.Errorf("%d nodes are kept for nobody", n)
	}
}

func newHub() *fanout.Hub {
	return fanout.NewHub(fanout.NewMetrics(prometheus.NewRegistry()), fanout.Options{})
}

func object(kind relation.Kind, namespace, name, uid string) relation.Object {
	o := relation.Object{Kind: kind, Namespace: namespace, Name: name, UID: uid}
	var status *metadata.Status
	if kind == relation.Pod {
		status = &metadata.Status{}
	}
	o.Event = metadata.Encode(string(kind), metadata.Meta{Name: name, Namespace: namespace, UID: uid}, status)
	return o
}

func pod(uid string) relation.Object {
	p := object(relation.Pod, "n", uid, uid)
	p.Node = "a"
	return p
}

func uids(table map[string]*metadata.Event) (uids []string) {
	for uid := range table {
		uids = append(uids, uid)
	}
	return uids
}

func value(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func expect(t *testing.T, g prometheus.Gatherer, name string, want float64) {
	t.Helper()
	if got := value(t, g, name); got != want {
		t.Errorf("%s = %v, want %v", name, got, want)
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	r := prometheus.NewRegistry()
	fanout.NewHub(fanout.NewMetrics(r), fanout.Options{})
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

func BenchmarkChangeToSubscriber(b *testing.B) {
	h := newHub()
	s := h.Subscribe("a", relation.Kinds())
	var pods [2]relation.Object
	for i := range pods {
		pods[i] = pod("p")
		pods[i].Event = metadata.Encode("Pod", metadata.Meta{Name: fmt.Sprint(i), UID: "p"}, &metadata.Status{})
	}
	buf := make([]fanout.Message, 0, 8)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.Apply(pods[i%2])
		if len(s.Take(buf[:0], 8)) != 1 {
			b.Fatal("not one message")
		}
	}
}

// BenchmarkFirstView is what one more subscriber of a node with 30 pods costs.
func BenchmarkFirstView(b *testing.B) {
	h := newHub()
	h.Apply(object(relation.Namespace, "", "n", "ns"))
	for i := range 30 {
		h.Apply(pod(fmt.Sprint(i)))
	}
	buf := make([]fanout.Message, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		s := h.Subscribe("a", relation.Kinds())
		if len(s.Take(buf[:0], 64)) != 31 {
			b.Fatal("not the whole view")
		}
		s.Close()
	}
}
