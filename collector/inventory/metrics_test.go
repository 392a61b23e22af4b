package inventory

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestMetrics: what a run leaves, and that a type which is collected no more is
// not shown any longer.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	at := time.Unix(1000, 0)
	m.Ended(&Report{Result: Complete, Started: at, Ended: at.Add(2 * time.Second), Sent: Sent{Bytes: 10, Wire: 5, Retries: 1}, Types: []TypeReport{
		{Type: Type{Name: "pods"}, Outcome: OK, Listed: 3}, {Type: Type{Name: "old"}, Outcome: Absent},
	}})
	m.Ended(&Report{Result: Partial, Started: at, Ended: at.Add(time.Second), Types: []TypeReport{{Type: Type{Name: "pods"}, Outcome: Failed, Listed: 1}}})
	m.Ended(&Report{Result: Skipped, TooEarly: true, Started: at, Ended: at})
	m.Ended(&Report{Result: Skipped, Started: at, Ended: at})
	want := `
# HELP metawire_inventory_last_complete_timestamp_seconds When the last complete run ended, Unix time, at the replica that holds the Lease; 0 at the others, and before there was one.
# TYPE metawire_inventory_last_complete_timestamp_seconds gauge
metawire_inventory_last_complete_timestamp_seconds 1002
# HELP metawire_inventory_objects Objects of a type that the last run which was not skipped listed, at the replica that holds the Lease.
# TYPE metawire_inventory_objects gauge
metawire_inventory_objects{type="pods"} 1
# HELP metawire_inventory_types Types of the last run that was not skipped, by outcome: ok, forbidden, absent, failed, truncated; at the replica that holds the Lease.
# TYPE metawire_inventory_types gauge
metawire_inventory_types{outcome="absent"} 0
metawire_inventory_types{outcome="failed"} 1
metawire_inventory_types{outcome="forbidden"} 0
metawire_inventory_types{outcome="ok"} 0
metawire_inventory_types{outcome="truncated"} 0
# HELP metawire_inventory_runs_total Runs by result: complete, partial, failed, skipped (the endpoint turns this cluster away), put_off (it takes a later run).
# TYPE metawire_inventory_runs_total counter
metawire_inventory_runs_total{result="complete"} 1
metawire_inventory_runs_total{result="failed"} 0
metawire_inventory_runs_total{result="partial"} 1
metawire_inventory_runs_total{result="put_off"} 1
metawire_inventory_runs_total{result="skipped"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "metawire_inventory_last_complete_timestamp_seconds",
		"metawire_inventory_objects", "metawire_inventory_types", "metawire_inventory_runs_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestLastRunIsTheLeaders: the replica that comes to hold the Lease tells of the
// last run before it has made one; when another holds it, it tells of none.
func TestLastRunIsTheLeaders(t *testing.T) {
	t.Parallel()
	state, began := fakeState(), time.Unix(1000, 0)
	recorder := Recorder{State: state, Log: slog.New(slog.DiscardHandler)}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: state.Lease}}
	if _, err := state.API.CoordinationV1().Leases(state.Namespace).Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Report{
		{Result: Complete, Started: began, Ended: began.Add(time.Second)},
		{Result: Partial, Started: began.Add(time.Hour), Ended: began.Add(time.Hour + 7*time.Second), Types: []TypeReport{{Type: Type{Name: "pods"}, Outcome: Failed, Listed: 3}}},
	} {
		if err := recorder.Done(t.Context(), "", r); err != nil {
			t.Fatal(err)
		}
	}
	schedule, err := NewSchedule("@yearly", "UTC", 0)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	s := &Service{State: state, Schedule: schedule, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(registry)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	figures := func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := strings.TrimPrefix(f.GetName(), "metawire_inventory_")
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); v != 0 {
					got[name] = v
				}
			}
		}
		return got
	}
	want := map[string]float64{"last_complete_timestamp_seconds": 1001, "last_run_duration_seconds": 7, "objects pods": 3, "types failed": 1}
	inTime(t, "the last run is told", func() bool { return cmp.Equal(want, figures()) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]float64{}, figures()); d != "" {
		t.Errorf("told without the Lease:\n%s", d)
	}
}
