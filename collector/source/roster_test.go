package source_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/roster"
)

// partialEvent is one event of a watch of metadata.
func partialEvent(kind, meta string) string {
	return `{"type":"` + kind + `","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":` + meta + `}}`
}

const nodeJSON = `{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-1","uid":"node-1-uid"},
	"spec":{"podCIDR":"10.1.0.0/16"},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}`

// TestRoster: pods and namespaces go to the sink and to the roster, nodes to the
// roster alone, when listed and when watched.
func TestRoster(t *testing.T) {
	a := &apiServer{
		lists: map[string][]string{
			"pods": {podJSON("p1", "3"), podJSON("p2", "4")},
			"namespaces": {
				`{"metadata":{"name":"falco","uid":"ns-1","labels":{"metawire.dev/inject":"false"}}}`,
				`{"metadata":{"name":"gone","uid":"ns-2"}}`,
			},
			"nodes": {nodeJSON, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-2","uid":"node-2-uid"}}`},
		},
		watches: map[string][][]string{
			"pods": {{
				event(t, "DELETED", podJSON("p1", "5")), event(t, "DELETED", podJSON("p2", "6")), event(t, "ADDED", podJSON("p3", "7")),
			}},
			"namespaces": {{
				partialEvent("DELETED", `{"name":"gone","uid":"ns-2","resourceVersion":"8"}`),
				partialEvent("MODIFIED", `{"name":"falco","uid":"ns-1","resourceVersion":"9","labels":{"team":"a"}}`),
			}},
			"nodes": {{
				event(t, "DELETED", `{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-2","uid":"node-2-uid","resourceVersion":"8"}}`),
				event(t, "ADDED", `{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-3","uid":"node-3-uid","resourceVersion":"9"}}`),
			}},
		},
	}
	r := roster.New()
	s, to, _ := runWith(t, a, r)
	<-s.Synced()
	<-r.SyncedPods()
	<-r.SyncedNodes()
	<-r.SyncedNamespaces()
	eventually(t, "the roster follows the namespaces", func() bool {
		n, _ := r.Namespace("falco")
		_, gone := r.Namespace("gone")
		return len(n.Labels) == 1 && n.Labels["team"] == "a" && !gone
	})
	eventually(t, "the sink has them too", func() bool { _, ok := to.get(relation.Namespace, "ns-1"); return ok })
	eventually(t, "the roster follows", func() bool {
		uid, node, _, _ := r.Holder(netip.MustParseAddr("10.1.2.3"))
		_, gone := r.Node("node-2")
		_, come := r.Node("node-3")
		return uid == "p3" && node == "node-1" && !gone && come
	})
	for _, uid := range []string{"p1", "p2"} {
		if _, ok := r.Pod(uid); ok {
			t.Errorf("%s is still known", uid)
		}
	}
	if own, _ := r.OnNode("node-1", netip.MustParseAddr("192.0.2.1")); !own {
		t.Error("the node's address is not known")
	}
	if _, inRange := r.OnNode("node-1", netip.MustParseAddr("10.1.9.9")); !inRange {
		t.Error("the node's range is not known")
	}
	eventually(t, "the sink follows", func() bool { _, ok := to.get(relation.Pod, "p3"); return ok })
	for _, uid := range []string{"node-1-uid", "node-3-uid"} {
		if _, ok := to.get("Node", uid); ok {
			t.Error("the sink was fed a node")
		}
	}
}

// TestWithoutRoster no node is asked for.
func TestWithoutRoster(t *testing.T) {
	a := &apiServer{}
	s, _, _ := run(t, a)
	<-s.Synced()
	if asked := a.asked("nodes", func(*http.Request) string { return "asked" }); len(asked) > 0 {
		t.Error("nodes were asked for")
	}
}

// TestNodesRefused: the collector is ready without nodes, the roster never has
// them all.
func TestNodesRefused(t *testing.T) {
	r := roster.New()
	s, _, _ := runWith(t, &apiServer{missing: []string{"nodes"}}, r)
	<-s.Synced()
	refused := false
	for _, state := range s.States() {
		refused = refused || state.Kind.Kind == "Node" && state.Refused != nil
	}
	select {
	case <-r.SyncedNodes():
		t.Error("the roster has all nodes")
	default:
	}
	if !refused {
		t.Error("it does not say that nodes are refused")
	}
}
