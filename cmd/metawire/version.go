package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/metawire/metawire/internal/version"
)

func newVersion() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print which build this is",
		Example: `  metawire version
  metawire version -o json`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if output.value == "json" {
			return json.NewEncoder(c.OutOrStdout()).Encode(version.Get())
		}
		_, err := fmt.Fprintln(c.OutOrStdout(), "metawire", version.String())
		return err
	}
	return c
}
