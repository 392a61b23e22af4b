package metrics_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/tests/metrics"
)

const (
	root      = "../.."
	dashboard = root + "/grafana/metawire.json"
)

// TestReferenceIsCurrent: docs/metrics.md is what the daemons register.
func TestReferenceIsCurrent(t *testing.T) {
	want, err := os.ReadFile(root + "/docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := metrics.WriteReference(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/metrics.md is not current: make generate (-file +daemons):\n%s", diff)
	}
}

// TestEveryPackage: no package has metrics that nobody knows of.
func TestEveryPackage(t *testing.T) {
	var want, got []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte("\nfunc NewMetrics(")) {
			want = append(want, strings.TrimPrefix(filepath.Dir(path), root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range metrics.Sources() {
		got = append(got, s.Package)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages with a NewMetrics, and those of Sources (-code +Sources):\n%s", diff)
	}
}

// TestConventions: what promlinter cannot see, as names are put together.
func TestConventions(t *testing.T) {
	all, err := metrics.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no metrics")
	}
	for _, m := range all {
		if !strings.HasPrefix(m.Name, "metawire_") || (m.Type == "counter") != strings.HasSuffix(m.Name, "_total") || m.Help == "" {
			t.Errorf("%+v: begins with metawire_, and ends with _total if it is a counter", m)
		}
		for _, l := range m.Labels {
			if slices.Contains([]string{"pod", "uid", "ip", "address", "node", "namespace", "job", "instance"}, l) {
				t.Errorf("%s: label %q is unbounded, or a target's", m.Name, l)
			}
		}
	}
}

// TestDashboardQueries: each selects metrics that there are, by labels that they
// have, of one release.
func TestDashboardQueries(t *testing.T) {
	known, err := metrics.Names()
	if err != nil {
		t.Fatal(err)
	}
	queries, err := metrics.Queries(dashboard, map[string]string{"namespace": "ns", "release": "metawire", "__rate_interval": "1m"})
	if err != nil {
		t.Fatal(err)
	}
	if len(queries) < 30 {
		t.Fatalf("only %d queries", len(queries))
	}
	for _, q := range queries {
		if err := known.Check(q.Expr, "namespace", "job"); err != nil {
			t.Errorf("panel %q: %v", q.Panel, err)
		}
		selected, err := metrics.Selected(q.Expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range selected {
			if !slices.Contains(s.Labels, "namespace") || !slices.Contains(s.Labels, "job") {
				t.Errorf("panel %q: %s is of every release: %s", q.Panel, s.Metric, q.Expr)
			}
		}
	}
}

// TestCheckRefuses: the check is one.
func TestCheckRefuses(t *testing.T) {
	known, err := metrics.Names()
	if err != nil {
		t.Fatal(err)
	}
	for expr, want := range map[string]string{
		`sum(metawire_no_such_total{job="a"})`:         "no daemon has",
		`metawire_stream_refusals_total{cause="a"}`:    `no label "cause"`,
		`sum(metawire_collector_ready`:                 "unclosed",
		`{job="a"}`:                                    "names no metric",
		`metawire_stream_send_latency_seconds{le="1"}`: `no label "le"`,
	} {
		if err := known.Check(expr, "job"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, got %v", expr, want, err)
		}
	}
}

// TestDashboardPanels: each says what is good, none covers another, and all ask
// the data source that was chosen.
func TestDashboardPanels(t *testing.T) {
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	type place struct{ X, Y, W, H int }
	var d struct {
		UID    string
		Panels []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  place
			Datasource               struct{ UID string }
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q has the id of another", p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && (p.Description == "" || p.Datasource.UID != "${datasource}") {
			t.Errorf("panel %q has no description, or the data source %q", p.Title, p.Datasource.UID)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q is wider than the dashboard", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("panel %q covers %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		variables[v.Name] = v.Type
	}
	if diff := cmp.Diff(map[string]string{"datasource": "datasource", "namespace": "query", "release": "query"}, variables); diff != "" {
		t.Error(diff)
	}
}

// TestChartHasTheDashboard: the chart's copy is the dashboard.
func TestChartHasTheDashboard(t *testing.T) {
	want, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	chart, err := charts.Metawire()
	if err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile(chart, "files/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Error("charts/metawire/files/dashboard.json is not grafana/metawire.json: make generate")
	}
}
