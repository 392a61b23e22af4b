package report_test

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metawire/metawire/collector/report"
	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/wiring"
)

// TestConnected: of three wired pods with a ticket, one without, and one that is
// configured by hand, which are connected.
func TestConnected(t *testing.T) {
	pod := func(uid, node string, change func(*roster.Pod)) roster.Pod {
		p := falcoPod(change)
		p.UID, p.Node = uid, node
		return p
	}
	ticket, none := wired(wiring.Verdict{Wired: true, Ticket: true}), wired(wiring.Verdict{Wired: true, Reason: "the collector did not answer"})
	all := []roster.Pod{
		pod("a", "node-a", ticket), pod("b", "node-b", ticket), pod("c", "node-c", ticket), pod("none", "node-a", none),
		pod("by hand", "node-a", func(p *roster.Pod) { p.OptedOut = true }),
	}
	byAddress := func(node, pod string) report.Stream { return report.Stream{Node: node, Pod: pod, NoTicket: true} }
	for name, c := range map[string]struct {
		streams []report.Stream
		want    map[string]int
	}{
		"nobody": {nil, map[string]int{}},
		"all": {[]report.Stream{{Node: "node-a", Pod: "a"}, {Node: "node-b", Pod: "b"}, {Node: "node-c", Pod: "c"}, byAddress("node-a", "none")},
			map[string]int{"wired": 3, "wired_without_ticket": 1}},
		"one of them, twice":                             {[]report.Stream{{Node: "node-a", Pod: "a"}, {Node: "node-a", Pod: "a"}}, map[string]int{"wired": 1}},
		"others' streams, of nodes that have wired pods": {[]report.Stream{byAddress("node-a", "by hand"), byAddress("node-b", "x"), byAddress("node-c", "y")}, map[string]int{}},
		"addresses of nodes, whose streams none with a ticket has": {[]report.Stream{byAddress("node-a", ""), byAddress("node-a", ""), byAddress("node-b", "")},
			map[string]int{"wired_without_ticket": 1}},
		"nobody asked whose streams they are": {[]report.Stream{{Node: "node-a"}, {Node: "node-b"}, {Node: "node-b"}, {Node: "node-x"}}, map[string]int{"wired": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			r := roster.New()
			r.ReplacePods(slices.Values(all))
			o := options()
			o.Streams = func() []report.Stream { return c.streams }
			registry := start(t, r, nil, o)
			eventually(t, "the pods are known", func() bool {
				return cmp.Equal(map[string]int{"wired": 3, "wired_without_ticket": 1, "opted_out": 1}, pods(t, registry))
			})
			if d := cmp.Diff(c.want, byState(t, registry, "metawire_falco_pods_connected")); d != "" {
				t.Errorf("connected (-want +got):\n%s", d)
			}
		})
	}
}

// TestConnectedAtOnce: there are figures before anything is known.
func TestConnectedAtOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	report.New(roster.New(), nil, slog.New(slog.DiscardHandler), report.NewMetrics(registry), options())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "metawire_falco_pods_connected" && len(f.GetMetric()) == 2 {
			return
		}
	}
	t.Errorf("no figures: %v", families)
}
