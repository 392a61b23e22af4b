package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/metawire/metawire/internal/lastrun"
)

func newInventory() *cobra.Command {
	var report string
	c := &cobra.Command{
		Use:   "inventory --report FILE",
		Short: "Require the last run of the inventory to have been complete",
		Long: `Say what the last run of the inventory was, by the report that is kept in a
ConfigMap and is mounted here. Passes if the run was complete, if the endpoint only
put it off, and if none has ended yet: a release that was just installed is not
wrong.`,
		Example: "  probe inventory --report /etc/metawire-report/report.json",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&report, "report", "", "`file` with the report; none means that there was no run (required)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if report == "" {
			return errors.New("--report is required and must not be empty")
		}
		return inventory(c.OutOrStdout(), report, time.Now())
	}
	return c
}

// inventory passes, which is no error, if the last run was complete or there was
// none.
func inventory(out io.Writer, file string, now time.Time) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(out, "PASS: no run of the inventory has ended yet; to make one now: metawire inventory trigger")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	r, err := lastrun.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, line := range r.Lines(now) {
		fmt.Fprintln(out, line)
	}
	switch {
	case r.TooEarly:
		fmt.Fprintln(out, "PASS: the endpoint answered the last run, and put it off: it was too early for another")
		return nil
	case !r.Complete():
		return fmt.Errorf("the last run of the inventory is %s, not complete: see above; metawire inventory types says what is missed, metawire inventory trigger makes another", r.Result)
	}
	fmt.Fprintln(out, "PASS: the last run of the inventory was complete")
	return nil
}
