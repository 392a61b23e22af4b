package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
)

// run makes a run, and prints what it is asked for.
func (r *inventoryRun) run(ctx context.Context, stdout, stderr io.Writer) error {
	cfg, err := r.configuration()
	if err != nil {
		return err
	}
	api, err := r.api()
	if err != nil {
		return err
	}
	if !r.dryRun {
		report, err := following(stderr, func(log *slog.Logger, progress func(inventory.Progress)) (*inventory.Report, error) {
			return collector.InventoryOnce(ctx, cfg, api, log, progress)
		})
		if err != nil {
			return err
		}
		return printReport(stdout, r.output.value, report)
	}
	if r.output.value == "json" {
		return writeDocument(ctx, cfg, api, stdout, stderr)
	}
	report, err := dryRun(ctx, cfg, api, inventory.NewDocument(io.Discard, int(cfg.Inventory.MaxObjectBytes)), stderr)
	if err != nil {
		return err
	}
	return printReport(stdout, "text", report)
}

// writeDocument makes a dry run and writes its document as it comes.
func writeDocument(ctx context.Context, cfg *config.Config, api *rest.Config, stdout, stderr io.Writer) error {
	document := inventory.NewDocument(stdout, int(cfg.Inventory.MaxObjectBytes))
	report, err := dryRun(ctx, cfg, api, document, stderr)
	if report != nil { // of a run that was interrupted too: what is there is a document
		err = errors.Join(err, document.Finish(report))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(stderr, inventory.Summary(report))
	return incomplete(report)
}

func dryRun(ctx context.Context, cfg *config.Config, api *rest.Config, to *inventory.Document, stderr io.Writer) (*inventory.Report, error) {
	return following(stderr, func(log *slog.Logger, progress func(inventory.Progress)) (*inventory.Report, error) {
		return collector.InventoryTo(ctx, cfg, api, log, to, progress)
	})
}

// following shows on stderr how far a run is.
func following(stderr io.Writer, run func(*slog.Logger, func(inventory.Progress)) (*inventory.Report, error)) (*inventory.Report, error) {
	line := newProgress(stderr)
	var mu sync.Mutex
	now := "asking the API server what it serves"
	turning := make(chan struct{})
	var turns sync.WaitGroup
	turns.Go(func() {
		tick := time.NewTicker(drawEvery)
		defer tick.Stop()
		for {
			mu.Lock()
			line.say(now)
			mu.Unlock()
			select {
			case <-turning:
				line.end()
				return
			case <-tick.C:
			}
		}
	})
	defer turns.Wait()
	defer close(turning)
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return run(log, func(p inventory.Progress) {
		mu.Lock()
		defer mu.Unlock()
		now = progressOf(p)
	})
}
