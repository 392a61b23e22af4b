package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// grown is what a collector of a size used.
type grown struct {
	subscribers int
	change      time.Duration // CPU
	resident    int64
}

// growth measures CPU a change and memory at growing numbers of nodes and
// subscribers, with few pods a node, on a control plane of its own.
func (b *bench) growth(ctx context.Context) (err error) {
	st, err := newStage(ctx, b.log, b.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	var sizes []grown
	for _, nodes := range b.growthSizes {
		if err := st.fill(ctx, world{nodes, b.growthPods, b.replicas}); err != nil {
			return err
		}
		g, err := b.grow(ctx, st)
		if err != nil {
			return fmt.Errorf("%d subscribers: %w", nodes, err)
		}
		b.log.say("%d subscribers: %s a change, %s resident", g.subscribers, us(g.change), mib(g.resident))
		sizes = append(sizes, g)
	}
	b.judgeGrowth(sizes)
	return nil
}

// grow measures one size with a collector that was just started.
func (b *bench) grow(ctx context.Context, st *stage) (g grown, err error) {
	c, err := startCollector(ctx, b.collectorLog, b.binary, st.cluster.Kubeconfig(), st.dir)
	if err != nil {
		return g, err
	}
	defer c.kill()
	defer func() { err = c.explain(err) }()
	l, err := st.listen(ctx, c)
	if err != nil {
		return g, err
	}
	defer l.close()
	used := func(do func() error) (cpu, wall time.Duration, err error) {
		began := time.Now()
		before, err := cpuTime(c.pid)
		if err != nil {
			return 0, 0, err
		}
		if err := do(); err != nil {
			return 0, 0, err
		}
		after, err := cpuTime(c.pid)
		return after - before, time.Since(began), err
	}
	idle, idleWall, err := used(func() error { return pause(ctx, b.idle) })
	if err != nil {
		return g, err
	}
	var book *ledger
	busy, wall, err := used(func() (err error) {
		book, err = st.measure(ctx, l, shuffled(st.podsOf(everyNode)), b.rate, b.growthLoad)
		return err
	})
	if err != nil {
		return g, err
	}
	g.subscribers = st.nodes
	g.change = (busy - time.Duration(float64(idle)*ratio(wall, idleWall))) / time.Duration(len(book.changes))
	g.resident, _, err = residentMemory(c.pid)
	return g, err
}

func (b *bench) judgeGrowth(sizes []grown) {
	n := len(sizes) - 1
	least, most := sizes[0].change, sizes[0].change
	for _, g := range sizes {
		least, most = min(least, g.change), max(most, g.change)
		b.report.note(fmt.Sprintf("%d subscribers", g.subscribers), us(g.change)+" a change", mib(g.resident)+" resident")
	}
	span := fmt.Sprintf("%d to %d subscribers", sizes[0].subscribers, sizes[n].subscribers)
	b.report.judge(goalGrowthCPU, us(most), "least "+us(least)+", "+span, ratio(most, least))
	first, last := perSubscriber(sizes[0], sizes[1]), perSubscriber(sizes[n-1], sizes[n])
	b.report.judge(goalGrowthSize,
		fmt.Sprintf("%.1f KiB, %d to %d", last, sizes[n-1].subscribers, sizes[n].subscribers),
		fmt.Sprintf("%.1f KiB, %d to %d", first, sizes[0].subscribers, sizes[1].subscribers), ratio(last, first))
}

// perSubscriber returns the KiB that one more subscriber, with its node's
// objects, took between two sizes.
func perSubscriber(a, b grown) float64 {
	return float64(b.resident-a.resident) / float64(b.subscribers-a.subscribers) / (1 << 10)
}
