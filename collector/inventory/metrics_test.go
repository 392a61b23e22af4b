package inventory

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestMetrics: what a run leaves, and that a type which is collected no more is
// not shown any longer.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	at := time.Unix(1000, 0)
	m.ended(&Report{Result: Complete, Started: at, Ended: at.Add(2 * time.Second), Sent: Sent{Bytes: 10, Wire: 5, Retries: 1}, Types: []TypeReport{
		{Type: Type{Name: "pods"}, Outcome: OK, Listed: 3}, {Type: Type{Name: "old"}, Outcome: Absent},
	}})
	m.ended(&Report{Result: Partial, Started: at, Ended: at.Add(time.Second), Types: []TypeReport{{Type: Type{Name: "pods"}, Outcome: Failed, Listed: 1}}})
	want := `
# HELP metawire_inventory_last_complete_timestamp_seconds When the last complete run of this replica ended, Unix time; 0 before there was one.
# TYPE metawire_inventory_last_complete_timestamp_seconds gauge
metawire_inventory_last_complete_timestamp_seconds 1002
# HELP metawire_inventory_objects Objects of a type that the last run listed.
# TYPE metawire_inventory_objects gauge
metawire_inventory_objects{type="pods"} 1
# HELP metawire_inventory_types Types of the last run by outcome: ok, forbidden, absent, failed, truncated.
# TYPE metawire_inventory_types gauge
metawire_inventory_types{outcome="absent"} 0
metawire_inventory_types{outcome="failed"} 1
metawire_inventory_types{outcome="forbidden"} 0
metawire_inventory_types{outcome="ok"} 0
metawire_inventory_types{outcome="truncated"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "metawire_inventory_last_complete_timestamp_seconds",
		"metawire_inventory_objects", "metawire_inventory_types"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
