// Command collector watches the Kubernetes API and streams to every Falco the
// metadata of its own node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // the image has no time zones, and schedules do

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/metawire/metawire/collector"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/daemon"
	"github.com/metawire/metawire/internal/reload"
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
	daemon.Flags

	inventoryOnce bool
}

// command parses the command line and hands it to run.
func command(logs io.Writer, run func(context.Context, flags) error) *cobra.Command {
	var once bool
	cmd := daemon.Command(&cobra.Command{
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
	}, logs, func(ctx context.Context, f daemon.Flags) error { return run(ctx, flags{f, once}) })
	cmd.Flags().BoolVar(&once, "inventory-once", false, "make one run of the inventory and end")
	return cmd
}

// run runs the collector until ctx ends or the configuration file changes.
func run(ctx context.Context, f flags) error {
	log := f.Log
	daemon.SetUp(log)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if f.inventoryOnce {
		return inventoryOnce(ctx, f)
	}
	cfg, data, err := config.Load(f.Config)
	if err != nil {
		return err
	}
	api, err := f.API("collector")
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
	g.Go(func() error { return c.WatchConfig(running, f.Config, data) })
	g.Go(func() error {
		if err := c.Run(running); err != nil {
			return err
		}
		return errDrained
	})
	err = g.Wait()
	if errors.Is(err, errDrained) || errors.Is(err, reload.ErrChanged) {
		log.Info("ended", "reason", err)
		return nil
	}
	return err
}

// inventoryOnce makes one run. What came of it is in the log too.
func inventoryOnce(ctx context.Context, f flags) error {
	cfg, err := config.LoadInventory(f.Config, os.Getenv)
	if err != nil {
		return err
	}
	api, err := f.API("collector")
	if err != nil {
		return err
	}
	report, err := collector.InventoryOnce(ctx, cfg, api, f.Log, nil)
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
