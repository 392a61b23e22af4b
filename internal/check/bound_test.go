package check

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/migrate/values"
)

// TestBound: what is written here and elsewhere is the same.
func TestBound(t *testing.T) {
	chart, err := charts.Metawire()
	if err != nil {
		t.Fatal(err)
	}
	text, err := fs.ReadFile(chart, "Chart.yaml")
	if err != nil || !strings.Contains(string(text), `kubeVersion: ">=`+oldest+`.0-0"`) {
		t.Errorf("the chart is not for Kubernetes %s and later: %v", oldest, err)
	}
	c, err := config.DecodeInventory([]byte(`{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, clusterID: c, inventory: {endpoint: "https://x", resources: [pods]}}`), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	if c.Inventory.Schedule != defaultSchedule {
		t.Errorf("the collector's default is %q, not %s", c.Inventory.Schedule, defaultSchedule)
	}
	if want := []string{values.Metacollector + "-", values.Firefly + "-", values.Infralight + "-"}; !slices.Equal(predecessors(), want) {
		t.Errorf("migrated are releases of the charts %q", want)
	}
}
