// Command collector watches the Kubernetes API and streams to every Falco the
// metadata of its own node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // the image has no time zones, and schedules do

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/metawire/metawire/collector"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cmd := command(os.Stderr, run)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// flags are the command line.
type flags struct {
	config, kubeconfig string
	inventoryOnce      bool
	log                *slog.Logger
}

// command parses the command line and hands it to run.
func command(logs io.Writer, run func(context.Context, flags) error) *cobra.Command {
	var f flags
	level, format := slog.LevelInfo, "json"
	cmd := &cobra.Command{
		Use:   "collector --config FILE [--kubeconfig FILE]",
		Short: "Stream Kubernetes metadata to the Falco of each node",
		Long: `collector watches the Kubernetes API once for the whole cluster and streams to
each subscriber, over gRPC, the metadata of the node it names. Falco's k8smeta
plugin is such a subscriber.

It also sends the inventory to an endpoint, if it is configured to.

It ends with status 0 after SIGTERM, or when the configuration file has changed
so that it is started again with the new one; in both cases it first drains its
streams, which takes up to 25 seconds.

With --inventory-once it makes one run of the inventory and ends: with status 0
if the run was complete, else with 1, also if the endpoint did not want it.`,
		Example: `  collector --config /etc/metawire/collector.yaml
  collector --config /etc/metawire/collector.yaml --inventory-once
  collector --config collector.yaml --kubeconfig ~/.kube/config --log-format text`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(logs, level, format)
			if err != nil {
				return err
			}
			f.log = log
			return run(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.config, "config", "", "configuration `FILE` (required)")
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `FILE`; default: the pod's ServiceAccount")
	cmd.Flags().BoolVar(&f.inventoryOnce, "inventory-once", false, "make one run of the inventory and end")
	cmd.Flags().TextVar(&level, "log-level", &level, "lowest level that is logged: debug, info, warn or error")
	cmd.Flags().StringVar(&format, "log-format", format, "json or text")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

func logger(w io.Writer, level slog.Level, format string) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: level}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	default:
		return nil, fmt.Errorf("--log-format: %q is not allowed: must be json or text", format)
	}
}

// run runs the collector until ctx ends or the configuration file changes.
func run(ctx context.Context, f flags) error {
	log := f.log
	klog.SetLogger(logr.FromSlogHandler(log.Handler()))
	ctrllog.SetLogger(logr.FromSlogHandler(log.Handler()))
	setMemoryLimit(log)
	if f.inventoryOnce {
		return inventoryOnce(ctx, f)
	}
	cfg, data, err := config.Load(f.config)
	if err != nil {
		return err
	}
	api, err := apiConfig(f.kubeconfig)
	if err != nil {
		return err
	}
	c, err := collector.New(cfg, api, log, collector.Options{})
	if err != nil {
		return err
	}
	log.Info("starting", "version", version.String(), "api", api.Host, "stream", cfg.Stream.Address, "tls", cfg.Stream.TLS.Mode,
		"inventory", cfg.Inventory.Enabled)
	g, running := errgroup.WithContext(ctx) // either one's end is the other's
	g.Go(func() error { return c.WatchConfig(running, f.config, data) })
	g.Go(func() error {
		if err := c.Run(running); err != nil {
			return err
		}
		return errDrained
	})
	err = g.Wait()
	if errors.Is(err, errDrained) || errors.Is(err, collector.ErrConfigChanged) {
		log.Info("ended", "reason", err)
		return nil
	}
	return err
}

// inventoryOnce makes one run. What came of it is in the log too.
func inventoryOnce(ctx context.Context, f flags) error {
	cfg, err := config.LoadInventory(f.config, os.Getenv)
	if err != nil {
		return err
	}
	api, err := apiConfig(f.kubeconfig)
	if err != nil {
		return err
	}
	report, err := collector.InventoryOnce(ctx, cfg, api, f.log, nil)
	if err != nil {
		return err
	}
	if report.Result != inventory.Complete {
		return fmt.Errorf("inventory run %s: %s", report.Run, inventory.Summary(report))
	}
	return nil
}

// errDrained is the usual end.
var errDrained = errors.New("all streams are drained")

// gcPercent trades a little CPU for memory: most of the heap lives as long as
// the objects of the cluster.
const gcPercent = 80

// setMemoryLimit keeps the garbage collector below the container's limit.
func setMemoryLimit(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	limit, err := memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(0.9))
	if err == nil && limit < math.MaxInt64 {
		log.Debug("memory limit set", "bytes", limit)
	}
}

// apiConfig says how to reach the API server.
func apiConfig(kubeconfig string) (*rest.Config, error) {
	api, err := rest.InClusterConfig()
	if kubeconfig != "" {
		if api, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
			return nil, fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("not in a pod: give the API server's address and credentials with --kubeconfig FILE: %w", err)
	}
	api.UserAgent = "metawire-collector/" + version.Version
	return api, nil
}
