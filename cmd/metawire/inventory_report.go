package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/metawire/metawire/collector/inventory"
)

// writeReport writes a report for people: a table of the types, what is worth
// knowing besides, and all in a sentence.
func writeReport(w io.Writer, r *inventory.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TYPE\tOUTCOME\tLISTED\tSENT\tDELETED\tKIB\tTOOK\tWHY")
	for i := range r.Types {
		s := &r.Types[i]
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%.1f\t%s\t%s\n",
			s.Name, s.Outcome, s.Listed, s.Sent, s.Deleted, float64(s.Bytes)/1024, s.Took.Round(time.Millisecond), s.Error)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range r.Types {
		for _, name := range r.Types[i].Oversized {
			fmt.Fprintf(w, "too large: %s %s\n", r.Types[i].Name, name)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	_, err := fmt.Fprintln(w, inventory.Summary(r))
	return err
}

// progress is a line that says what goes on: one that turns on a terminal, else
// a new one whenever it is another.
type progress struct {
	w     io.Writer
	turns bool
	last  string
	turn  int
}

func newProgress(w io.Writer) *progress {
	file, ok := w.(*os.File)
	return &progress{w: w, turns: ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"}
}

// say tells it; it must be called often for the line to turn.
func (p *progress) say(what string) {
	switch {
	case p.turns:
		wheel := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
		fmt.Fprintf(p.w, "\r%s%c %s", clearRight, wheel[p.turn%len(wheel)], what)
		p.turn++
	case what != p.last:
		fmt.Fprintln(p.w, what)
	}
	p.last = what
}

// end takes the line off a terminal.
func (p *progress) end() {
	if p.turns {
		fmt.Fprint(p.w, "\r"+clearRight)
	}
}
