// Command webhook wires Falco pods to the collector as they are admitted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

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

// flags are the command line.
type flags struct {
	config, kubeconfig string
	log                *slog.Logger
}

// command parses the command line and hands it to run.
func command(logs io.Writer, run func(context.Context, flags) error) *cobra.Command {
	var f flags
	level, format := slog.LevelInfo, "json"
	cmd := &cobra.Command{
		Use:   "webhook --config FILE [--kubeconfig FILE]",
		Short: "Wire Falco pods to the collector as they are admitted",
		Long: `webhook is a mutating admission webhook. It has Falco pods subscribe to the
collector's stream of their node, and says why when it leaves one as it is.

It ends with status 0 after SIGTERM, 5 seconds later, or when the configuration
file has changed so that it is started again with the new one.`,
		Example:       `  webhook --config /etc/metawire/webhook.yaml`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := &slog.HandlerOptions{Level: level}
			switch format {
			case "json":
				f.log = slog.New(slog.NewJSONHandler(logs, o))
			case "text":
				f.log = slog.New(slog.NewTextHandler(logs, o))
			default:
				return fmt.Errorf("--log-format: %q is not allowed: must be json or text", format)
			}
			return run(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.config, "config", "", "configuration `FILE` (required)")
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `FILE`; default: the pod's ServiceAccount")
	cmd.Flags().TextVar(&level, "log-level", &level, "lowest level that is logged: debug, info, warn or error")
	cmd.Flags().StringVar(&format, "log-format", format, "json or text")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// errEnded is the usual end.
var errEnded = errors.New("told to end")

// run runs the webhook until ctx ends or the configuration file changes.
func run(ctx context.Context, f flags) error {
	klog.SetLogger(logr.FromSlogHandler(f.log.Handler()))
	ctrllog.SetLogger(logr.FromSlogHandler(f.log.Handler()))
	cfg, data, err := config.Load(f.config)
	if err != nil {
		return err
	}
	api, err := rest.InClusterConfig()
	if f.kubeconfig != "" {
		if api, err = clientcmd.BuildConfigFromFlags("", f.kubeconfig); err != nil {
			return fmt.Errorf("--kubeconfig %s: %w", f.kubeconfig, err)
		}
	} else if err != nil {
		return fmt.Errorf("not in a pod: give the API server's address and credentials with --kubeconfig FILE: %w", err)
	}
	api.UserAgent = "metawire-webhook/" + version.Version
	client, err := kubernetes.NewForConfig(api)
	if err != nil {
		return fmt.Errorf("client for %s: %w", api.Host, err)
	}
	w, err := webhook.New(cfg, client, f.log)
	if err != nil {
		return err
	}
	f.log.Info("starting", "version", version.String(), "api", api.Host, "address", cfg.Address, "tls", cfg.TLS.Mode)
	g, running := errgroup.WithContext(ctx) // either one's end is the other's
	g.Go(func() error { return w.WatchConfig(running, f.config, data) })
	g.Go(func() error {
		if err := w.Run(running); err != nil {
			return err
		}
		return errEnded
	})
	err = g.Wait()
	if errors.Is(err, errEnded) || errors.Is(err, webhook.ErrConfigChanged) {
		f.log.Info("ended", "reason", err)
		return nil
	}
	return err
}
