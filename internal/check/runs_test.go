package check

import (
	"strings"
	"testing"
	"time"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/lastrun"
)

func TestMissed(t *testing.T) {
	for name, tc := range map[string]struct {
		schedule, jitter string
		ended            time.Duration // ago
		missed           bool
	}{
		"just now":                  {"", "", time.Minute, false},
		"a little late":             {"", "", 40 * time.Minute, false},
		"none for two hours":        {"", "", 2 * time.Hour, true},
		"two hours are allowed":     {"", "2h", 2 * time.Hour, false},
		"and more than that passed": {"", "2h", 4 * time.Hour, true},
		"once a day, two ago":       {"0 3 * * *", "", 34 * time.Hour, true},
		"once a day, one ago":       {"0 3 * * *", "", 9 * time.Hour, false},
		"no schedule that is one":   {"x", "", 1000 * time.Hour, false},
	} {
		if due := missed(&installation.Sender{Schedule: tc.schedule, Jitter: tc.jitter}, now().Add(-tc.ended), now()); due.IsZero() == tc.missed {
			t.Errorf("%s: got %s", name, due)
		}
	}
}

// TestJudgeRun: a run that the endpoint put off is no fault of anybody's.
func TestJudgeRun(t *testing.T) {
	target := &Target{Now: now(), found: &installation.Installation{Namespace: "ns"}}
	for name, tc := range map[string]struct {
		report  lastrun.Report
		outcome Outcome
		hint    string
	}{
		"complete":                {lastrun.Report{Result: "complete", Ended: now()}, OK, ""},
		"put off":                 {lastrun.Report{Result: "skipped", TooEarly: true, Error: "425", Ended: now()}, Warning, "inventory.schedule"},
		"put off, and none since": {lastrun.Report{Result: "skipped", TooEarly: true, Error: "425", Ended: now().Add(-3 * time.Hour)}, Failed, "are the collectors ready?"},
		"refused":                 {lastrun.Report{Result: "skipped", Error: "the account is suspended", Ended: now()}, Failed, "inventory.credentials"},
		"partial":                 {lastrun.Report{Result: "partial", Ended: now()}, Failed, "metawire inventory types"},
	} {
		f := target.judgeRun(&tc.report, &installation.Sender{})
		if f.outcome != tc.outcome || !strings.Contains(f.hint, tc.hint) || (f.hint == "") != (tc.hint == "") {
			t.Errorf("%s: got %+v", name, f)
		}
	}
}
