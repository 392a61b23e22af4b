// Command probe checks from inside of the cluster that the collector does its
// work. It is what `helm test` runs.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/metawire/metawire/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
}

// run executes the command line until the probe has passed or failed; the log
// of it goes to out, the reason of a failure is returned.
func run(ctx context.Context, args []string, out io.Writer) error {
	root := &cobra.Command{
		Use:           "probe",
		Short:         "Check from inside of the cluster that the collector does its work",
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newStream(), newPermissions(), newWebhook(), newInventory()) //nolint:contextcheck // cobra hands it on
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(out)
	return root.ExecuteContext(ctx)
}
