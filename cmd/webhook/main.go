// Command webhook wires Falco pods to the collector as they are admitted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/internal/daemon"
	"github.com/metawire/metawire/internal/reload"
	"github.com/metawire/metawire/internal/version"
	"github.com/metawire/metawire/webhook"
	"github.com/metawire/metawire/webhook/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command(os.Stderr, run).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// command parses the command line and hands it to run.
func command(logs io.Writer, run func(context.Context, daemon.Flags) error) *cobra.Command {
	return daemon.Command(&cobra.Command{
		Use:   "webhook --config FILE [--kubeconfig FILE]",
		Short: "Wire Falco pods to the collector as they are admitted",
		Long: `webhook is a mutating admission webhook. It has Falco pods subscribe to the
collector's stream of their node, and says why when it leaves one as it is.

It ends with status 0 after SIGTERM, 5 seconds later, or when the configuration
file has changed so that it is started again with the new one.`,
		Example: `  webhook --config /etc/metawire/webhook.yaml`,
	}, logs, run)
}

// errEnded is the usual end.
var errEnded = errors.New("told to end")

// run runs the webhook until ctx ends or the configuration file changes.
func run(ctx context.Context, f daemon.Flags) error {
	daemon.SetUp(f.Log)
	cfg, data, err := config.Load(f.Config)
	if err != nil {
		return err
	}
	api, err := f.API("webhook")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(api)
	if err != nil {
		return fmt.Errorf("client for %s: %w", api.Host, err)
	}
	w, err := webhook.New(cfg, client, f.Log)
	if err != nil {
		return err
	}
	f.Log.Info("starting", "version", version.String(), "api", api.Host, "address", cfg.Address, "tls", cfg.TLS.Mode)
	g, running := errgroup.WithContext(ctx) // either one's end is the other's
	g.Go(func() error { return w.WatchConfig(running, f.Config, data) })
	g.Go(func() error {
		if err := w.Run(running); err != nil {
			return err
		}
		return errEnded
	})
	err = g.Wait()
	if errors.Is(err, errEnded) || errors.Is(err, reload.ErrChanged) {
		f.Log.Info("ended", "reason", err)
		return nil
	}
	return err
}
