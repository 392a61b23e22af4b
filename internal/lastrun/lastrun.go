// Package lastrun says in words what the last run of a release's inventory was. It
// reads the report that the sender keeps in a ConfigMap, and of that only what it
// needs: so it may be of another version. It makes no runs.
package lastrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Key is the report's in its ConfigMap.
const Key = "report.json"

// maxListed bounds the types that are named.
const maxListed = 20

// Report is what is needed of a report.
type Report struct {
	Result string `json:"result"`
	// TooEarly says that the endpoint put the run off, and nothing is wrong.
	TooEarly bool      `json:"tooEarly"`
	Ended    time.Time `json:"ended"`
	Error    string    `json:"error"`
	Notes    []string  `json:"notes"`
	Sent     struct {
		Objects int `json:"objects"`
	} `json:"sent"`
	Types []Type `json:"types"`
}

// Type is what came of a resource type.
type Type struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	Listed  int    `json:"listed"`
	Error   string `json:"error"`
}

// Parse reads a report.
func Parse(text []byte) (*Report, error) {
	r := &Report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("not a report of a run: %w", err)
	}
	if r.Result == "" || r.Ended.IsZero() {
		return nil, errors.New("not a report of a run: it lacks result or ended")
	}
	return r, nil
}

// Complete reports whether everything arrived that is configured and served.
func (r *Report) Complete() bool { return r.Result == "complete" }

// Lines say what the run was: when it ended and how, how much it was, why it is
// not complete, and which types did not arrive whole. Of those that the API server
// does not serve there is nothing to arrive.
func (r *Report) Lines(now time.Time) []string {
	listed := 0
	var missed []string
	for _, t := range r.Types {
		listed += t.Listed
		if t.Outcome != "ok" && t.Outcome != "absent" {
			missed = append(missed, fmt.Sprintf("%s: %s: %s", t.Name, t.Outcome, t.Error))
		}
	}
	lines := []string{fmt.Sprintf("the last run ended %s ago: %s, %d objects of %d types, %d of them sent",
		now.Sub(r.Ended).Round(time.Second), r.Result, listed, len(r.Types), r.Sent.Objects)}
	if r.Error != "" {
		lines = append(lines, r.Error)
	}
	if more := len(missed) - maxListed; more > 0 {
		missed = append(missed[:maxListed], fmt.Sprintf("and %d types more", more))
	}
	return append(append(lines, missed...), r.Notes...)
}
