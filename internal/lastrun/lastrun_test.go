package lastrun_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/lastrun"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// parse reads a report as a sender writes it.
func parse(t *testing.T, r inventory.Report) *lastrun.Report {
	t.Helper()
	r.Ended = now.Add(-90 * time.Second)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := lastrun.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLines(t *testing.T) {
	typed := func(name string, listed int, outcome inventory.Outcome, why string) inventory.TypeReport {
		return inventory.TypeReport{Type: inventory.Type{Name: name}, Outcome: outcome, Listed: listed, Error: why}
	}
	for name, c := range map[string]struct {
		report inventory.Report
		want   []string
	}{
		"complete": {
			inventory.Report{Result: inventory.Complete, Sent: inventory.Sent{Objects: 5}, Types: []inventory.TypeReport{typed("pods", 7, inventory.OK, ""), typed("rollouts", 0, inventory.Absent, "")}},
			[]string{"the last run ended 1m30s ago: complete, 7 objects of 2 types, 5 of them sent"},
		},
		"partial": {
			inventory.Report{Result: inventory.Partial, Notes: []string{"left open"}, Types: []inventory.TypeReport{typed("pods", 1, inventory.Truncated, "too large"), typed("secrets", 0, inventory.Forbidden, "not allowed")}},
			[]string{"the last run ended 1m30s ago: partial, 1 objects of 2 types, 0 of them sent", "pods: truncated: too large", "secrets: forbidden: not allowed", "left open"},
		},
		"skipped": {
			inventory.Report{Result: inventory.Skipped, Error: "the account is suspended"},
			[]string{"the last run ended 1m30s ago: skipped, 0 objects of 0 types, 0 of them sent", "the account is suspended"},
		},
	} {
		got := parse(t, c.report)
		if d := cmp.Diff(c.want, got.Lines(now)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if got.Complete() != (c.report.Result == inventory.Complete) {
			t.Errorf("%s: complete is %t", name, got.Complete())
		}
	}
}

// TestManyTypes: not all of them are named.
func TestManyTypes(t *testing.T) {
	r := inventory.Report{Result: inventory.Partial}
	for n := range 25 {
		r.Types = append(r.Types, inventory.TypeReport{Type: inventory.Type{Name: fmt.Sprint(n)}, Outcome: inventory.Failed})
	}
	if got := parse(t, r).Lines(now); len(got) != 22 || got[21] != "and 5 types more" {
		t.Errorf("the lines are %q", got)
	}
}

// TestParse: what is no report is not taken for one.
func TestParse(t *testing.T) {
	for _, text := range []string{"", "{", "{}", `{"result":"complete"}`, `{"result":7}`} {
		if r, err := lastrun.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "not a report of a run") {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
	}
}
