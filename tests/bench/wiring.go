package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/metawire/metawire/tests/rotation"
)

// wiring measures what wires pods and keeps their streams trusted, on a control
// plane of its own.
func (b *bench) wiring(ctx context.Context) (err error) {
	if b.stage, err = newStage(ctx, b.log, b.settings); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stage.stop()) }()
	if b.admissions > 0 {
		if err := b.admission(ctx); err != nil {
			return fmt.Errorf("admission: %w", err)
		}
	}
	if b.changes > 0 {
		return b.rotation(ctx)
	}
	return nil
}

// rotation renews certificates and changes the authority under load. Nobody may
// notice: that is a failure, and there is no figure then.
func (b *bench) rotation(ctx context.Context) error {
	api, err := clientcmd.BuildConfigFromFlags("", b.stage.cluster.Kubeconfig())
	if err != nil {
		return err
	}
	r, err := rotation.Run(ctx, rotation.Options{
		API: api, Changes: b.changes, Leaves: b.leaves, Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	failures := 0.0
	value := fmt.Sprintf("%d certificates a daemon, %d authorities", r.Leaves, r.Changes)
	if err != nil {
		failures, value = 1, err.Error()
	}
	b.report.judge(goalRotation, value, fmt.Sprintf("%d admissions, %d connections, %d streams with %d events, in %s",
		r.Admissions, r.Connections, r.Streams, r.Events, r.Took.Round(time.Second)), failures)
	return nil
}
