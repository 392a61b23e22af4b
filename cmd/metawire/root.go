package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// run executes the command line until it is done or ctx ends. What was asked
// for goes to stdout, all else that people should know to stderr; the error is
// left to the caller to print.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "metawire",
		Short: "Kubernetes metadata for Falco, node by node",
		Long: `metawire looks at Metawire from the outside: whether it works, what its collector
streams and sends, and why a pod is wired to it or is not.

Exit codes: 0 as asked, 1 error, 2 a finding (a check failed, a pod is not wired,
an inventory is not complete).`,
		Example: `  # Does it work?
  metawire check

  # What Falco on worker-1 is told, live
  metawire watch --node worker-1

  # Why this pod gets metadata, or gets none
  metawire explain pod falco/falco-x2x7z

  # What of this cluster would be sent to an endpoint
  metawire inventory --dry-run

  # What would become of an old collector
  metawire migrate --dry-run

  # Which build this is
  metawire version`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newCheck(), newExplain(), newInventory(), newMigrate(), newWatch(), newVersion()) //nolint:contextcheck // cobra hands it on
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)", err, c.CommandPath())
	})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// choice is the value of a flag that takes one of a few words.
type choice struct {
	value   string
	allowed []string
}

// outputFlag adds -o to a command. The first format is the default.
func outputFlag(c *cobra.Command, formats ...string) *choice {
	f := &choice{formats[0], formats}
	c.Flags().VarP(f, "output", "o", "output format")
	return f
}

func (c *choice) String() string { return c.value }

// Type is what the help shows for the value.
func (c *choice) Type() string { return strings.Join(c.allowed, "|") }

// Set takes the value from the command line.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("allowed are %s", strings.Join(c.allowed, ", "))
	}
	c.value = s
	return nil
}
