// Package check holds the checks behind `metawire check`: one file a check, all
// of them in one table. They only read.
package check

import (
	"context"
	"time"

	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/internal/installation"
)

// Outcome is what came of a check.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped" // it needs something that was not found, or that the release is without
)

// Result is what a check found.
type Result struct {
	Group   string  `json:"group"`
	Check   string  `json:"check"` // what is right, as a statement
	Outcome Outcome `json:"outcome"`
	// Details say what was found, a line each.
	Details []string `json:"details,omitempty"`
	// Hint says what to do; a failed check always has one.
	Hint string `json:"hint,omitempty"`
}

// Target is what is checked.
type Target struct {
	Config    *rest.Config
	Namespace string // of Metawire; empty: it is looked for
	Now       time.Time

	// found is set by the check of the installation, for those that follow.
	found *installation.Installation
}

// check is one row of the table.
type check struct {
	group, name string
	// needs says whether the installation has what is checked; nil: it needs none.
	needs func(*installation.Installation) bool
	// run returns details, and a hint if the check failed.
	run func(ctx context.Context, t *Target) (details []string, hint string)
}

// checks is the table, in the order in which they run.
func checks() []check {
	release := func(*installation.Installation) bool { return true }
	collects := func(i *installation.Installation) bool { return i.Host != "" }
	streams := func(i *installation.Installation) bool { return i.Port != 0 }
	return []check{
		{"Kubernetes", "the API server answers, and is of a version that is supported", nil, apiServer},
		{"Metawire", "one release is installed", nil, installed},
		{"Metawire", "the collectors are ready", collects, collectors},
		{"Metawire", "the webhooks are ready", streams, webhooks},
		{"Metawire", "the API server trusts the webhook's certificate", streams, trusted},
		{"Falco", "every Falco pod is wired, or left alone on purpose", streams, falcoPods},
		{"Inventory", "the last run was complete", release, inventoryRuns},
	}
}

// Run runs all checks and tells each result as it comes. It reports whether none
// failed. It blocks for as long as the API server takes.
func Run(ctx context.Context, t *Target, tell func(Result)) bool {
	good := true
	for _, c := range checks() {
		r := Result{Group: c.group, Check: c.name, Outcome: OK}
		if c.needs != nil && (t.found == nil || !c.needs(t.found)) {
			r.Outcome = Skipped
		} else if r.Details, r.Hint = c.run(ctx, t); r.Hint != "" {
			r.Outcome, good = Failed, false
		}
		tell(r)
	}
	return good
}
