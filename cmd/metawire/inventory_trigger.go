package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/installation"
)

// trigger is the command's flags.
type trigger struct {
	cluster cluster
	output  *choice
	timeout time.Duration
	poll    time.Duration
}

func newInventoryTrigger() *cobra.Command {
	c := &cobra.Command{
		Use:   "trigger",
		Short: "Send the inventory now, and show what comes of it",
		Long: `Ask the collector that sends the inventory for a run now, follow it, and print its
report. With inventory.mode CronJob a Job is made of the CronJob for that. A run
that goes on already is waited for, and the one that was asked for follows it.

This annotates the inventory's Lease and reads the ConfigMap of the report, which
takes these permissions in Metawire's namespace: get and patch leases, list and get
configmaps; and list services. A CronJob takes these besides: list cronjobs, create
and get jobs.

Exit codes: 0 the run was complete, 2 it was not (the report says why), 1 error.`,
		Example: `  metawire inventory trigger

  # Which types did not arrive whole?
  metawire inventory trigger -o json | jq -r '.types[] | select(.outcome != "ok") | [.name, .outcome, .error] | @tsv'`,
		Args: cobra.NoArgs,
	}
	t := trigger{poll: time.Second}
	t.cluster.flags(c)
	c.Flags().DurationVar(&t.timeout, "timeout", 10*time.Minute, "how long to wait for the report")
	t.output = outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		found, _, err := t.cluster.find(c.Context())
		if err != nil {
			return err
		}
		sender, err := found.Sender(c.Context())
		if err != nil {
			return err
		}
		at := sender.State
		return t.run(c.Context(), found, newState(found.Client(), at.Namespace, at.Lease, at.Report), sender.CronJob, c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

func newState(api kubernetes.Interface, namespace, lease, report string) *inventory.State {
	return &inventory.State{API: api, Namespace: namespace, Lease: lease, Report: report}
}

// run asks for a run, follows it and prints its report. Without a CronJob a
// collector makes it.
func (t *trigger) run(ctx context.Context, found *installation.Installation, state *inventory.State, from *batchv1.CronJob, stdout, stderr io.Writer) error {
	id := uuid.NewString()
	if err := state.Ask(ctx, id); err != nil {
		return err
	}
	w := holder(found, state)
	if from != nil {
		var err error
		if w, err = startJob(ctx, state, from, id); err != nil {
			return err
		}
	}
	w.hint += fmt.Sprintf("; whether the endpoint answers: helm test %s -n %s", found.Release, found.Namespace)
	report, err := t.follow(ctx, state, id, w, stderr)
	if err != nil {
		return err
	}
	return printReport(stdout, t.output.value, report)
}

// follow waits until the run has been answered.
func (t *trigger) follow(ctx context.Context, state *inventory.State, id string, w worker, stderr io.Writer) (*inventory.Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, fmt.Errorf("no report within %s", t.timeout))
	defer cancel()
	line := newProgress(stderr)
	defer line.end()
	line.say("waiting for " + w.name)
	tick := time.NewTicker(t.poll)
	defer tick.Stop()
	for {
		ended, err := w.ended(ctx) // first: what has ended has told
		var status inventory.Status
		if err == nil {
			status, err = state.Status(ctx)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			return nil, err
		case status.Trigger == id && status.Report != nil:
			return status.Report, nil
		case ended:
			return nil, fmt.Errorf("%s has ended without a report: %s", w.name, w.hint)
		case status.Progress == nil || time.Since(status.Progress.Updated) > time.Minute: // left by one that was canceled
		case status.Progress.Trigger != id:
			line.say("another run goes on: " + progressOf(*status.Progress))
		default:
			line.say(progressOf(*status.Progress))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the run: %w; %s", context.Cause(ctx), w.hint)
		case <-tick.C:
		}
	}
}

func progressOf(p inventory.Progress) string {
	return fmt.Sprintf("%d of %d types, %d objects, %s", p.Done, p.Types, p.Objects, p.Type)
}

// errIncomplete says that a run was not complete, which was printed.
var errIncomplete = fmt.Errorf("%w: the run was not complete", errFinding)

// printReport prints a report; one of a run that was not complete is a finding.
func printReport(w io.Writer, format string, r *inventory.Report) error {
	var err error
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	} else {
		err = writeReport(w, r)
	}
	if err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return incomplete(r)
}

func incomplete(r *inventory.Report) error {
	if r.Result != inventory.Complete {
		return errIncomplete
	}
	return nil
}
