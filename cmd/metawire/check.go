package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/metawire/metawire/internal/check"
)

func newCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check that Metawire works, and say what to do where it does not",
		Long: `Check the API server, Metawire's daemons, the webhook's certificate, and every Falco
pod of the cluster: is it wired, and if not, why? Nothing is changed.

Exit codes: 0 all is well, 2 a check failed, 1 error.`,
		Example: `  metawire check

  # What failed, for a program
  metawire check -o json | jq '.[] | select(.outcome == "failed")'`,
		Args: cobra.NoArgs,
	}
	var k cluster
	k.flags(c)
	output := outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, _, err := k.config()
		if err != nil {
			return err
		}
		t := &check.Target{Config: config, Namespace: k.namespace, Now: time.Now()}
		out := c.OutOrStdout()
		results, group := []check.Result{}, ""
		good := check.Run(c.Context(), t, func(r check.Result) {
			if output.value == "json" {
				results = append(results, r)
				return
			}
			if r.Group != group {
				group = r.Group
				fmt.Fprintf(out, "%s\n", group)
			}
			tell(out, r)
		})
		if output.value == "json" {
			if err := json.NewEncoder(out).Encode(results); err != nil {
				return err
			}
		}
		if !good {
			return errFinding
		}
		return nil
	}
	return c
}

// tell writes a result for people.
func tell(out io.Writer, r check.Result) {
	mark, color := "✓", green
	switch r.Outcome {
	case check.Failed:
		mark, color = "✗", red
	case check.Skipped:
		mark, color = "-", ""
	case check.OK:
	}
	if file, ok := out.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("NO_COLOR") != "" || color == "" {
		fmt.Fprintf(out, "  %s %s\n", mark, r.Check)
	} else {
		fmt.Fprintf(out, "  %s%s%s %s\n", color, mark, plain, r.Check)
	}
	for _, d := range r.Details {
		fmt.Fprintf(out, "      %s\n", d)
	}
	if r.Hint != "" {
		fmt.Fprintf(out, "    → %s\n", r.Hint)
	}
}
