package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/migrate"
	"github.com/metawire/metawire/migrate/values"
)

// writeSurvey writes plans, and what was done before, for people.
func writeSurvey(w io.Writer, s *migrate.Survey) error {
	for _, d := range s.Done {
		fmt.Fprintf(w, "Release %s became Metawire's release %s.\n", d.Old, d.New)
		if d.Service != nil {
			fmt.Fprintf(w, "  %s still leads to it; when nobody uses it: metawire migrate --finish\n", d.Service)
		}
	}
	if len(s.Plans) == 0 {
		_, err := fmt.Fprintln(w, "There is nothing to migrate.")
		return err
	}
	for _, p := range s.Plans {
		if err := writePlan(w, p); err != nil {
			return err
		}
	}
	return nil
}

func writePlan(w io.Writer, p *migrate.Plan) error {
	switch {
	case p.New.Name == "": // nothing that can be migrated, which its problems explain
		fmt.Fprintf(w, "Release %s cannot be migrated\n", p.Old)
	case p.Resumes == migrate.PhaseRollBack:
		fmt.Fprintf(w, "Release %s (chart %s %s) is being brought back, and release %s of Metawire removed\n", p.Old, p.Old.Chart, p.Old.Version, p.New)
	default:
		fmt.Fprintf(w, "Release %s (chart %s %s) becomes release %s of Metawire %s\n", p.Old, p.Old.Chart, p.Old.Version, p.New, p.New.Version)
	}
	switch p.Resumes {
	case "", migrate.PhaseRollBack:
	case migrate.PhaseKept:
		fmt.Fprint(w, "\n  The new release works, and the old one was kept (--keep-old). It is removed now.\n")
	default:
		fmt.Fprintf(w, "\n  This was begun, and goes on with: %s\n", p.Resumes)
	}
	section(w, "Steps", p.Steps)
	if len(p.Values) > 0 {
		if err := writeValues(w, p); err != nil {
			return err
		}
	}
	if len(p.Objects) > 0 {
		fmt.Fprint(w, "\n  Objects\n")
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, c := range p.Objects {
			fmt.Fprintf(t, "    %s\t%s\t%s\n", c.Action, c.Object, c.Why)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	section(w, "Permissions", p.Permissions)
	section(w, "Falco", p.Falco)
	section(w, "By hand, or to know", p.ByHand)
	section(w, "Problems: nothing is changed while there are any", p.Problems)
	_, err := fmt.Fprintln(w)
	return err
}

// writeValues writes the table of the old values, and the new ones as YAML.
func writeValues(w io.Writer, p *migrate.Plan) error {
	fmt.Fprint(w, "\n  Values of the old release\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var defaulted []string
	for _, n := range p.Values {
		if n.Outcome == values.Defaulted && n.Reason == "" {
			defaulted = append(defaulted, n.Key)
			continue
		}
		fmt.Fprintf(t, "    %s\t%s\t%s\t%s\n", n.Outcome, n.Key, n.Value, cmp.Or(strings.Join(n.To, ", "), n.Reason))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(defaulted) > 0 {
		fmt.Fprintf(w, "    as the old chart has them, and as ours has its own: %s\n", strings.Join(defaulted, ", "))
	}
	text, err := yaml.Marshal(p.NewValues)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n  Values of the new release\n%s\n", indent(string(text)))
	return nil
}

func section(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n  %s\n", title)
	for _, l := range lines {
		fmt.Fprintf(w, "    - %s\n", strings.TrimLeft(indent(l), " "))
	}
}

// indent moves all lines to where a section's text is.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}

// steps shows what goes on: each step as a line when it has ended, on a
// terminal as one that turns until then, elsewhere as it begins too.
type steps struct {
	w       io.Writer
	line    *progress
	stop    chan struct{}
	turning sync.WaitGroup
}

func newSteps(w io.Writer) *steps { return &steps{w: w, line: newProgress(w)} }

// begin shows a step until the next one, or end.
func (s *steps) begin(what string) {
	s.end()
	if !s.line.turns {
		s.line.say("  " + what)
		return
	}
	s.stop = make(chan struct{})
	stop, began := s.stop, time.Now()
	s.turning.Go(func() {
		tick := time.NewTicker(drawEvery)
		defer tick.Stop()
		for {
			s.line.say(fmt.Sprintf("%s (%s)", what, time.Since(began).Round(time.Second)))
			select {
			case <-stop:
				s.line.end()
				return
			case <-tick.C:
			}
		}
	})
}

// end takes what is shown away.
func (s *steps) end() {
	if s.stop != nil {
		close(s.stop)
		s.turning.Wait()
		s.stop = nil
	}
}

// tell shows a step of a migration.
func (s *steps) tell(step migrate.Step) {
	if !step.Ended {
		s.begin(step.Says)
		return
	}
	s.end()
	mark := "✓"
	if step.Err != nil {
		mark = "✗"
	}
	fmt.Fprintf(s.w, "%s %s (%s)\n", mark, step.Says, step.Took.Round(100*time.Millisecond))
	for _, f := range step.Found {
		fmt.Fprintf(s.w, "    %s\n", f)
	}
}
