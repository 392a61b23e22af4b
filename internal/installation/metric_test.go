package installation

import (
	"strings"
	"testing"
)

func TestSumOf(t *testing.T) {
	const page = `# HELP a_total A counter with labels.
# TYPE a_total counter
a_total{reason="x"} 2
a_total{reason="y"} 0.5
# TYPE b gauge
b 7
`
	for name, want := range map[string]float64{"a_total": 2.5, "b": 7} {
		if got, err := sumOf(strings.NewReader(page), name); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
		}
	}
	for what, page := range map[string]string{"no such metric": page, "no page of metrics": "<html>"} {
		if got, err := sumOf(strings.NewReader(page), "c"); err == nil {
			t.Errorf("%s: got %v and no error", what, got)
		}
	}
}
