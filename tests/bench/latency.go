package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// listeners are what hears of changes: a subscriber a node and a plain watch,
// in this process.
type listeners struct {
	fleet   *fleet
	watch   <-chan error
	current atomic.Pointer[ledger]
	cancel  context.CancelFunc
}

// listen subscribes for every node and blocks until all subscribers have their
// first view.
func (st *stage) listen(ctx context.Context, c *collector) (*listeners, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &listeners{cancel: cancel}
	watcher, err := newClient(st.cluster.Kubeconfig())
	if err != nil {
		cancel()
		return nil, err
	}
	if l.watch, err = watchPods(ctx, watcher, func(n int) { l.note(n, (*ledger).watch) }); err != nil {
		cancel()
		return nil, err
	}
	if l.fleet, err = dialFleet(ctx, c.stream, st.nodes, clientWindow); err != nil {
		cancel()
		return nil, err
	}
	var open atomic.Int64
	open.Store(int64(st.nodes))
	synced, counts := make(chan struct{}), make([]int, st.nodes)
	l.fleet.watch(ctx, st.nodeNames(), func(i int, event []byte) {
		if counts[i]++; counts[i] == st.perNode() && open.Add(-1) == 0 {
			close(synced)
		}
		if n, ok := changeNumber(event); ok {
			l.note(n, (*ledger).deliver)
		}
	})
	if err := l.fleet.wait(ctx, synced); err != nil {
		l.close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return l, nil
}

func (l *listeners) note(number int, arrival func(*ledger, int)) {
	if current := l.current.Load(); current != nil {
		arrival(current, number)
	}
}

func (l *listeners) close() {
	l.cancel()
	l.fleet.close()
}

// arrivalTimeout is how long changes may take to arrive after the last was
// written.
const arrivalTimeout = 30 * time.Second

// measure makes changes to the pods, one after the other, and blocks until all
// have arrived by both ways.
func (st *stage) measure(ctx context.Context, l *listeners, pods []pod, perSecond float64, d time.Duration) (*ledger, error) {
	book := st.ledgerFor(perSecond, d)
	l.current.Store(book)
	defer l.current.Store(nil)
	if err := load(ctx, st.client, book, pods, perSecond); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, arrivalTimeout, fmt.Errorf("not arrived within %s", arrivalTimeout))
	defer cancel()
	select {
	case err := <-l.watch:
		return nil, err
	default:
	}
	if err := l.fleet.wait(ctx, book.done); err != nil {
		watched, delivered := book.collect()
		return nil, fmt.Errorf("of %d changes the plain watch saw %d and the subscribers %d: %w",
			len(book.changes), len(watched), len(delivered), err)
	}
	return book, nil
}

// latency measures changes over all nodes, and what they cost beside a bare
// reflector.
func (b *bench) latency(ctx context.Context) error {
	l, err := b.stage.listen(ctx, b.collector)
	if err != nil {
		return err
	}
	defer l.close()
	idle, err := b.cpuOver(func() error { return pause(ctx, b.idle) })
	if err != nil {
		return err
	}
	b.log.say("idle: collector %.1f %% of a CPU, reflector %.1f %%", idle.percent(idle.collector), idle.percent(idle.reflector))
	var book *ledger
	busy, err := b.cpuOver(func() (err error) {
		book, err = b.stage.measure(ctx, l, shuffled(b.stage.podsOf(everyNode)), b.rate, b.load)
		return err
	})
	if err != nil {
		return fmt.Errorf("measure changes: %w", err)
	}
	watched, delivered := book.collect()
	b.judgeLatency(goalMedian, watched, delivered, 0.5)
	b.judgeLatency(goalTail, watched, delivered, 0.99)
	b.report.note("change latency max", ms(delivered.quantile(1)), "plain watch "+ms(watched.quantile(1)))

	changes := len(book.changes)
	ours := busy.less(idle, busy.collector, idle.collector) / time.Duration(changes)
	floor := busy.less(idle, busy.reflector, idle.reflector) / time.Duration(changes)
	b.report.judge(goalChangeCPU, us(ours), "bare reflector "+us(floor), ratio(ours, floor))
	b.report.note("changes", fmt.Sprintf("%d, %.0f/s", changes, float64(changes)/busy.wall.Seconds()), "asked for "+fmt.Sprintf("%.0f/s", b.rate))
	return b.memory(ctx)
}

func everyNode(int) bool { return true }

func (b *bench) judgeLatency(name string, watched, delivered latencies, q float64) {
	w, d := watched.quantile(q), delivered.quantile(q)
	b.report.judge(name, ms(d), "plain watch "+ms(w), milliseconds(d-w))
}

// memory looks at the processes after a time of changes.
func (b *bench) memory(ctx context.Context) error {
	steady, _, err := residentMemory(b.collector.pid)
	if err != nil {
		return err
	}
	floor, floorPeak, err := residentMemory(b.reflector.pid)
	if err != nil {
		return err
	}
	b.report.judge(goalResident, mib(steady), "bare reflector "+mib(floor), mebibytes(steady))
	b.report.judge(goalPeak, mib(b.collector.firstPeak), "bare reflector's peak "+mib(floorPeak), ratio(b.collector.firstPeak, steady))
	heap, err := b.collector.liveHeap(ctx)
	if err != nil {
		return err
	}
	b.report.note("live heap with subscribers", mib(heap), fmt.Sprintf("%d subscribers", b.stage.nodes))
	return nil
}

// cost is what two processes used in a time.
type cost struct{ wall, collector, reflector time.Duration }

// cpuOver returns what the collector and the bare reflector used while do ran.
func (b *bench) cpuOver(do func() error) (c cost, err error) {
	began := time.Now()
	before, err := b.cpuNow()
	if err != nil {
		return c, err
	}
	if err := do(); err != nil {
		return c, err
	}
	after, err := b.cpuNow()
	return cost{time.Since(began), after.collector - before.collector, after.reflector - before.reflector}, err
}

func (b *bench) cpuNow() (c cost, err error) {
	if c.collector, err = cpuTime(b.collector.pid); err != nil {
		return c, err
	}
	c.reflector, err = cpuTime(b.reflector.pid)
	return c, err
}

// less returns what was used beyond what an idle process uses in that time.
func (c cost) less(idle cost, used, idleUsed time.Duration) time.Duration {
	return used - time.Duration(float64(idleUsed)*ratio(c.wall, idle.wall))
}

func (c cost) percent(used time.Duration) float64 { return 100 * ratio(used, c.wall) }

func us(d time.Duration) string { return fmt.Sprintf("%d us", d.Microseconds()) }
