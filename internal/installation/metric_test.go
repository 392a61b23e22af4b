package installation

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAddSamples: the pages of several pods add up, by a label or as a whole.
func TestAddSamples(t *testing.T) {
	const page = `# HELP a_total A counter with labels.
# TYPE a_total counter
a_total{reason="x",kind="1"} 2
a_total{reason="x",kind="2"} 1
a_total{reason="y",kind="1"} 0.5
a_total{kind="1"} 4
# TYPE b gauge
b 7
`
	for _, tc := range []struct {
		name, label string
		want        map[string]float64
	}{
		{"a_total", "", map[string]float64{"": 15}},
		{"a_total", "reason", map[string]float64{"x": 6, "y": 1, "": 8}},
		{"a_total", "node", map[string]float64{"": 15}},
		{"b", "", map[string]float64{"": 14}},
	} {
		sums := map[string]float64{}
		for range 2 {
			if err := addSamples(sums, strings.NewReader(page), tc.name, tc.label); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
		}
		if d := cmp.Diff(tc.want, sums); d != "" {
			t.Errorf("%s by %q (-want +got):\n%s", tc.name, tc.label, d)
		}
	}
}

// TestNoSamples: what is no answer is not taken for 0.
func TestNoSamples(t *testing.T) {
	for what, page := range map[string]string{
		"no such metric":     "# TYPE other counter\nother 1\n",
		"no page of metrics": "<html>",
		"empty":              "",
		"no type":            "m 1\n",
		"histogram":          "# TYPE m histogram\nm_bucket{le=\"+Inf\"} 1\nm_sum 1\nm_count 1\n",
	} {
		sums := map[string]float64{}
		if err := addSamples(sums, strings.NewReader(page), "m", ""); err == nil {
			t.Errorf("%s: got %v and no error", what, sums)
		}
	}
}
