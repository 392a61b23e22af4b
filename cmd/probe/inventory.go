package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/endpoint"
	"github.com/metawire/metawire/internal/lastrun"
)

// inventoryProbe is the command's flags.
type inventoryProbe struct{ config, report string }

func newInventory() *cobra.Command {
	var p inventoryProbe
	c := &cobra.Command{
		Use:   "inventory --config FILE --report FILE",
		Short: "Require the endpoint to answer, and the last run of the inventory to have been complete",
		Long: `Ask the endpoint whether it takes what the inventory sends, with the credentials,
the authorities and the proxy of the configuration: a page without objects of the
contract objects, which changes nothing there; of the contract runs the login alone,
for a run that was opened would hold up the next.

Then say what the last run was, by the report that is kept in a ConfigMap and is
mounted here. Passes if the endpoint answers, and the run was complete, was only put
off by the endpoint, or has not ended yet: a release that was just installed is not
wrong.`,
		Example: "  probe inventory --config /etc/metawire/collector.yaml --report /etc/metawire-report/report.json",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&p.config, "config", "", "`file` with the configuration of whoever sends (required)")
	c.Flags().StringVar(&p.report, "report", "", "`file` with the report; none means that there was no run (required)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if p.config == "" || p.report == "" {
			return errors.New("--config and --report are required and must not be empty")
		}
		// Both are told, whatever comes of the first.
		out := c.OutOrStdout()
		if err := errors.Join(p.endpoint(c.Context(), out), p.lastRun(out, time.Now())); err != nil {
			return err
		}
		fmt.Fprintln(out, "PASS")
		return nil
	}
	return c
}

// endpoint requires it to take what is sent.
func (p *inventoryProbe) endpoint(ctx context.Context, out io.Writer) error {
	c, err := config.LoadInventory(p.config, os.Getenv)
	if err != nil {
		return err
	}
	took, err := endpoint.Try(ctx, &c.Inventory)
	if err == nil {
		fmt.Fprintln(out, "probe inventory:", took)
	}
	return err
}

// lastRun requires the last run to have been complete, if there was one.
func (p *inventoryProbe) lastRun(out io.Writer, now time.Time) error {
	text, err := os.ReadFile(p.report)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(out, "no run of the inventory has ended yet; to make one now: metawire inventory trigger")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	r, err := lastrun.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", p.report, err)
	}
	for _, line := range r.Lines(now) {
		fmt.Fprintln(out, line)
	}
	switch {
	case r.TooEarly:
		fmt.Fprintln(out, "the endpoint put it off, which is nothing once in a while")
	case !r.Complete():
		return fmt.Errorf("the last run of the inventory is %s, not complete: see above; metawire inventory types says what is missed, metawire inventory trigger makes another", r.Result)
	}
	return nil
}
