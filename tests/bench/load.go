package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
)

// maxUnderWay bounds the writes that are under way at once; when the API
// server is that slow, changes come later than asked for.
const maxUnderWay = 256

// shuffled returns the pods in an order that is the same in each run.
func shuffled(pods []pod) []pod {
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	return pods
}

// apply makes n changes at a rate, one pod after the other, or fewer if stop is
// closed, and blocks until the API server has answered all of them. write makes
// change i, of pod p.
func apply(ctx context.Context, stop <-chan struct{}, pods []pod, n int, perSecond float64, write func(ctx context.Context, i int, p pod) error) error {
	writers, ctx := errgroup.WithContext(ctx)
	// Two changes of one pod at a time would conflict, and be tried again.
	writers.SetLimit(min(maxUnderWay, len(pods)))
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := range n {
		timer.Reset(time.Until(began.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))))
		select {
		case <-timer.C:
		case <-stop:
			return writers.Wait()
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), writers.Wait())
		}
		writers.Go(func() error { return write(ctx, i, pods[i%len(pods)]) })
	}
	return writers.Wait()
}

// load is measured changes: each is noted in the ledger.
func load(ctx context.Context, client *kubernetes.Clientset, l *ledger, pods []pod, perSecond float64) error {
	return apply(ctx, nil, pods, len(l.changes), perSecond, func(ctx context.Context, i int, p pod) error {
		number := l.first + i
		l.ask(number)
		if err := label(ctx, client, p, strconv.Itoa(number)); err != nil {
			return fmt.Errorf("change %d: %w", number, err)
		}
		return nil
	})
}

// noise is changes that nobody measures, until stop is closed.
func noise(ctx context.Context, stop <-chan struct{}, client *kubernetes.Clientset, pods []pod, perSecond float64) error {
	return apply(ctx, stop, pods, math.MaxInt, perSecond, func(ctx context.Context, i int, p pod) error {
		if err := label(ctx, client, p, "n"+strconv.Itoa(i)); err != nil {
			return fmt.Errorf("change of pod %s: %w", p.name, err)
		}
		return nil
	})
}

// pause blocks for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
