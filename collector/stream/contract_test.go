package stream_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/stream"
)

// logs is what the server logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) contain(s string) bool { return l.count(s) > 0 }

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

// rawCodec leaves messages as they are on the wire.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("marshal %T: want bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("unmarshal into %T: want bytes", v)
	}
	*b = data.Materialize()
	return nil
}

// field encodes a length-delimited protobuf field: the tests' own encoder.
func field(number byte, value string) string {
	b := binary.AppendUvarint([]byte{number<<3 | 2}, uint64(len(value)))
	return string(b) + value
}

func entry(kind string, uids ...string) string {
	list := ""
	for _, uid := range uids {
		list += field(1, uid)
	}
	return field(1, field(1, kind)+field(2, list))
}

// TestContractOnTheWire holds every byte that a subscriber receives against
// the contract, from a selector that is written by hand too.
func TestContractOnTheWire(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	s.hub.Apply(namespace("uid-n"))
	s.hub.Apply(relation.Object{Kind: relation.Deployment, Namespace: "n", Name: "web", UID: "uid-d",
		Event: metadata.Encode("Deployment", metadata.Meta{Name: "web", Namespace: "n", UID: "uid-d", Labels: map[string]string{"b": "2", "a": "<1>"}}, nil)})
	s.hub.Apply(relation.Object{Kind: relation.ReplicaSet, Namespace: "n", Name: "web-1", UID: "uid-r", Owner: relation.Owner{Kind: "Deployment", UID: "uid-d"},
		Event: metadata.Encode("ReplicaSet", metadata.Meta{Name: "web-1", Namespace: "n", UID: "uid-r"}, nil)})
	c := conn(t, s.address)
	raw, err := c.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/metadata.Metadata/Watch", grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	selector := field(1, "node-1")
	for _, k := range pluginKinds() {
		selector += field(2, field(1, k)+field(2, "true"))
	}
	if err := raw.SendMsg([]byte(selector)); err != nil {
		t.Fatal(err)
	}
	if err := raw.CloseSend(); err != nil {
		t.Fatal(err)
	}
	expect := func(want ...string) {
		t.Helper()
		got, left := map[string]bool{}, map[string]bool{}
		for _, w := range want {
			var b []byte
			if err := raw.RecvMsg(&b); err != nil {
				t.Fatal(err)
			}
			got[string(b)], left[w] = true, true
		}
		if diff := cmp.Diff(left, got); diff != "" {
			t.Fatalf("bytes (-want +got):\n%s", diff)
		}
	}
	eventually(t, "subscribed", func() bool { return s.metric(t, "metawire_stream_subscribers") == 1 })
	p := pod("node-1", "uid-p")
	p.Owner = relation.Owner{Kind: "ReplicaSet", UID: "uid-r"}
	p.Event = metadata.Encode("Pod", metadata.Meta{Name: "web-1-x", GenerateName: "web-1-", Namespace: "n", UID: "uid-p", Labels: map[string]string{"app": "web"}},
		&metadata.Status{PodIP: "10.1.2.3"})
	s.hub.Apply(p)
	podMeta := field(4, `{"generateName":"web-1-","labels":{"app":"web"},"name":"web-1-x","namespace":"n","uid":"uid-p"}`)
	podRest := field(2, "uid-p") + field(3, "Pod") + podMeta + field(6, `{"podIP":"10.1.2.3"}`)
	refs := func(services ...string) string {
		return field(7, entry("Deployment", "uid-d")+entry("Namespace", "uid-n")+entry("ReplicaSet", "uid-r")+entry("Service", services...))
	}
	expect(
		field(1, "Create")+field(2, "uid-n")+field(3, "Namespace")+field(4, `{"name":"n","uid":"uid-n"}`),
		field(1, "Create")+field(2, "uid-d")+field(3, "Deployment")+field(4, `{"labels":{"a":"\u003c1\u003e","b":"2"},"name":"web","namespace":"n","uid":"uid-d"}`),
		field(1, "Create")+field(2, "uid-r")+field(3, "ReplicaSet")+field(4, `{"name":"web-1","namespace":"n","uid":"uid-r"}`),
		field(1, "Create")+podRest+refs(),
	)
	services(s.hub, 1, "uid-p")
	expect(
		field(1, "Create")+field(2, "service-0")+field(3, "Service")+field(4, `{"name":"service-0","namespace":"n","uid":"service-0"}`),
		field(1, "Update")+podRest+refs("service-0"),
	)
	s.hub.Delete(relation.Pod, "uid-p")
	expect(
		field(1, "Delete")+field(2, "uid-p")+field(3, "Pod"),
		field(1, "Delete")+field(2, "uid-n")+field(3, "Namespace"),
		field(1, "Delete")+field(2, "uid-d")+field(3, "Deployment"),
		field(1, "Delete")+field(2, "uid-r")+field(3, "ReplicaSet"),
		field(1, "Delete")+field(2, "service-0")+field(3, "Service"),
	)
}

// TestPodWithoutAddressHasAnEmptyStatus: status is {} and never left out.
func TestPodWithoutAddressHasAnEmptyStatus(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	s.hub.Apply(pod("node-1", "p"))
	e, err := s.watch(t, "node-1", "Pod").recv()
	if err != nil {
		t.Fatal(err)
	}
	if e.Status == nil || e.GetStatus() != "{}" || e.Spec != nil || e.Refs == nil {
		t.Errorf("received %v", e)
	}
}

func TestSelection(t *testing.T) {
	world := func(s *served) {
		s.hub.Apply(namespace("ns"))
		for i, k := range []relation.Kind{relation.ReplicationController, relation.StatefulSet} {
			owner := relation.Object{Kind: k, Namespace: "n", Name: "o", UID: string(k), Event: metadata.Encode(string(k), metadata.Meta{Name: "o", Namespace: "n", UID: string(k)}, nil)}
			p := pod("node-1", fmt.Sprintf("p%d", i))
			p.Owner = relation.Owner{Kind: string(k), UID: string(k)}
			s.hub.Apply(owner)
			s.hub.Apply(p)
		}
	}
	for name, c := range map[string]struct {
		node  string
		kinds []string
		want  []string
	}{
		"the alias of ReplicationController":  {"node-1", []string{"ReplicaController"}, []string{"ReplicationController"}},
		"its right name":                      {"node-1", []string{"ReplicationController"}, []string{"ReplicationController"}},
		"both":                                {"node-1", []string{"ReplicaController", "ReplicationController"}, []string{"ReplicationController"}},
		"beyond the plugin, when named":       {"node-1", []string{"StatefulSet"}, []string{"StatefulSet"}},
		"what the plugin asks for":            {"node-1", pluginKinds(), []string{"Namespace", "Pod", "Pod", "ReplicationController"}},
		"unknown kinds beside a known one":    {"node-1", []string{"Secret", "pod", "", "Namespace"}, []string{"Namespace"}},
		"unknown kinds alone":                 {"node-1", []string{"Secret"}, nil},
		"slices are for nobody":               {"node-1", []string{"EndpointSlice"}, nil},
		"no kinds":                            {"node-1", nil, nil},
		"a node that nobody knows":            {"node-9", pluginKinds(), nil},
		"a node whose name is a part of ours": {"node", pluginKinds(), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stream.Options{}, nil)
			world(s)
			sub := s.watch(t, c.node, c.kinds...)
			eventually(t, "subscribed", func() bool { return s.metric(t, "metawire_stream_subscribers") == 1 })
			eventually(t, "all is sent", func() bool { return s.metric(t, "metawire_stream_pending_objects") == 0 })
			s.drain()
			events, code := sub.ending()
			var got []string
			for _, e := range events {
				got = append(got, e.Kind)
			}
			if diff := cmp.Diff(c.want, slices.Sorted(slices.Values(got))); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
			if code != codes.Aborted {
				t.Errorf("the stream was not open until the drain: %s", code)
			}
		})
	}
}

// TestNodeThatAppearsLater: a stream for a node that nobody knows yet receives
// when the node gets a pod.
func TestNodeThatAppearsLater(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	sub := s.watch(t, "node-9", "Pod")
	eventually(t, "subscribed", func() bool { return s.metric(t, "metawire_stream_subscribers") == 1 })
	s.hub.Apply(pod("node-9", "p"))
	sub.expect(t, "Create Pod p")
}

// TestUnnamedSubscriber: an unset variable in the plugin's configuration, or a
// name that no node can have, gives an open and silent stream, a log line and a
// count.
func TestUnnamedSubscriber(t *testing.T) {
	for name, node := range map[string]string{"empty": "", "too long": strings.Repeat("n", 254)} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stream.Options{}, nil)
			s.hub.Apply(pod(node, "p"))
			sub := s.watch(t, node, pluginKinds()...)
			eventually(t, "counted", func() bool { return s.metric(t, "metawire_stream_unnamed_subscribers_total") == 1 })
			eventually(t, "logged", func() bool { return s.logs.contain("nodeName") })
			s.drain()
			if events, code := sub.ending(); len(events) > 0 || code != codes.Aborted {
				t.Errorf("received %v and %s, want silence until the drain", events, code)
			}
		})
	}
}

// TestTwoSubscribersOfOneNode: each gets everything, whatever the other selects
// and whenever it comes and goes.
func TestTwoSubscribersOfOneNode(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	s.hub.Apply(namespace("ns"))
	s.hub.Apply(pod("node-1", "p"))
	first, second := s.watch(t, "node-1", pluginKinds()...), s.watch(t, "node-1", "Pod")
	first.expect(t, "Create Namespace ns", "Create Pod p")
	second.expect(t, "Create Pod p")
	s.hub.Apply(pod("node-1", "p", "2"))
	first.expect(t, "Update Pod p")
	second.expect(t, "Update Pod p")
	first.cancel()
	eventually(t, "the first is gone", func() bool { return s.metric(t, "metawire_stream_subscribers") == 1 })
	s.hub.Delete(relation.Pod, "p")
	second.expect(t, "Delete Pod p")
	if n := s.metric(t, "metawire_stream_endings_total", "client_gone"); n != 1 {
		t.Errorf("%v streams counted as client_gone, want 1", n)
	}
}

// TestManyStreamsOnOneConnection: 100 streams share it, each for its own node.
func TestManyStreamsOnOneConnection(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	c := conn(t, s.address)
	subs := make([]*subscription, 100)
	for i := range subs {
		node := fmt.Sprintf("node-%d", i)
		s.hub.Apply(pod(node, "pod-"+node))
		subs[i] = watch(t, c, node, "Pod")
	}
	for i, sub := range subs {
		sub.expect(t, fmt.Sprintf("Create Pod pod-node-%d", i))
	}
	s.hub.Delete(relation.Pod, "pod-node-99")
	subs[99].expect(t, "Delete Pod pod-node-99")
	if n := s.metric(t, "metawire_stream_subscribers"); n != 100 {
		t.Errorf("%v subscribers, want 100", n)
	}
}

// TestSubscriberBeforeTheSync gets nothing until everything is known, and then
// all of it, owners and namespace before pods.
func TestSubscriberBeforeTheSync(t *testing.T) {
	synced := make(chan struct{})
	s := serve(t, stream.Options{}, synced)
	s.hub.Apply(pod("node-1", "p"))
	sub := s.watch(t, "node-1", pluginKinds()...)
	eventually(t, "arrived", func() bool { return s.logs.contain("subscribed") })
	s.hub.Apply(namespace("ns"))
	close(synced)
	e := []string{sub.next(t), sub.next(t)}
	if diff := cmp.Diff([]string{"Create Namespace ns", "Create Pod p"}, e); diff != "" {
		t.Error(diff)
	}
	s.drain()
	if more, _ := sub.ending(); len(more) > 0 {
		t.Errorf("received %v besides: something was sent before the sync", more)
	}
}
