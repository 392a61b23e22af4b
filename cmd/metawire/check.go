package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/metawire/metawire/charts"
	collectorconfig "github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/internal/check"
	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/version"
	webhookconfig "github.com/metawire/metawire/webhook/config"
)

// checkAgain is how long to wait before all checks are made once more.
const checkAgain = 2 * time.Second

// checking is the command's flags.
type checking struct {
	cluster cluster
	pre     bool
	wait    time.Duration
	output  *choice
}

func newCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check that Metawire works, and say what to do where it does not",
		Long: `Check the API server, Metawire's daemons and what they may do, their Services and
certificates, the webhook, every Falco pod of the cluster, and the inventory's last
run. Each check says what it found, and what to do if that is wrong. Nothing is
changed: a Falco pod that is made to try the webhook is made in a dry run.

With --pre, before an install: is the cluster one that Metawire supports, may you
install it, and is there something already?

Exit codes: 0 no check failed, 2 a check failed, 1 error.`,
		Example: `  metawire check

  # After an install or an upgrade
  metawire check --wait 5m

  # Before an install
  metawire check --pre

  # What failed, for a program
  metawire check -o json | jq '.[] | select(.outcome == "failed")'`,
		Args: cobra.NoArgs,
	}
	var k checking
	k.cluster.flags(c)
	c.Flags().BoolVar(&k.pre, "pre", false, "check what there is before an install")
	c.Flags().DurationVar(&k.wait, "wait", 0, "check again until nothing fails, so `long` at most (such as 2m)")
	k.output = outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if k.wait < 0 {
			return fmt.Errorf("--wait is %s: allowed are 0, which checks once, and longer", k.wait)
		}
		return k.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

func (k *checking) run(ctx context.Context, out, progress io.Writer) error {
	config, _, err := k.cluster.config()
	if err != nil {
		return err
	}
	t := &check.Target{Config: config, Namespace: k.cluster.namespace, Version: version.Version}
	t.Decode = map[string]func([]byte) error{
		installation.Collector: func(file []byte) error { _, err := collectorconfig.Decode(file); return err },
		installation.Webhook:   func(file []byte) error { _, err := webhookconfig.Decode(file); return err },
	}
	types, err := charts.ResourceTypes()
	if err != nil {
		return err
	}
	for _, r := range types {
		t.Types = append(t.Types, check.Type{Group: r.Group, Resource: r.Resource, Streamed: r.Streamed})
	}
	text := &checkText{out: out}
	tell := text.tell
	if k.wait > 0 || k.output.value == "json" {
		tell = func(check.Result) {} // told when it is the last time
	}
	results, good := k.once(ctx, t, tell)
	if k.wait > 0 {
		if results, good, err = k.until(ctx, t, results, progress); err != nil {
			return err
		}
	}
	switch {
	case k.output.value == "json":
		if err := json.NewEncoder(out).Encode(results); err != nil {
			return err
		}
	case k.wait > 0:
		for _, r := range results {
			text.tell(r)
		}
	}
	if !good {
		return errFinding
	}
	return nil
}

// once makes all checks.
func (k *checking) once(ctx context.Context, t *check.Target, tell func(check.Result)) (results []check.Result, good bool) {
	run := check.Run
	if k.pre {
		run = check.RunPre
	}
	t.Now = time.Now()
	good = run(ctx, t, func(r check.Result) {
		results = append(results, r)
		tell(r)
	})
	return results, good
}

// until makes them again while some fail and there is time, and says which when
// that changes.
func (k *checking) until(ctx context.Context, t *check.Target, results []check.Result, progress io.Writer) ([]check.Result, bool, error) {
	end := time.Now().Add(k.wait)
	for told := ""; ; {
		var failed []string
		for _, r := range results {
			if r.Outcome == check.Failed {
				failed = append(failed, r.Check)
			}
		}
		if len(failed) == 0 || time.Now().Add(checkAgain).After(end) {
			return results, len(failed) == 0, nil
		}
		if now := strings.Join(failed, "; "); now != told {
			fmt.Fprintf(progress, "waiting, not true yet: %s\n", now)
			told = now
		}
		select {
		case <-ctx.Done():
			return results, false, ctx.Err()
		case <-time.After(checkAgain):
		}
		results, _ = k.once(ctx, t, func(check.Result) {})
	}
}

// checkText writes results for people, by groups.
type checkText struct {
	out   io.Writer
	group string
}

// tell writes a result.
func (w *checkText) tell(r check.Result) {
	if r.Group != w.group {
		w.group = r.Group
		fmt.Fprintf(w.out, "%s\n", r.Group)
	}
	mark, color := "✓", green
	switch r.Outcome {
	case check.Failed:
		mark, color = "✗", red
	case check.Warning:
		mark, color = "!", yellow
	case check.Skipped:
		fmt.Fprintf(w.out, "  - %s: not checked, %s\n", r.Check, strings.Join(r.Details, "; "))
		return
	case check.OK:
	}
	if !colored(w.out) {
		fmt.Fprintf(w.out, "  %s %s\n", mark, r.Check)
	} else {
		fmt.Fprintf(w.out, "  %s%s%s %s\n", color, mark, plain, r.Check)
	}
	for _, d := range r.Details {
		fmt.Fprintf(w.out, "      %s\n", d)
	}
	if r.Hint != "" {
		fmt.Fprintf(w.out, "    → %s\n", r.Hint)
	}
}

// colored reports whether to write colors: to a terminal, unless NO_COLOR is set.
func colored(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == ""
}
