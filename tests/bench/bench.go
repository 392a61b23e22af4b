package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bench is one run.
type bench struct {
	settings
	log          progress
	collectorLog io.Writer
	report       report

	stage     *stage
	collector *collector
	reflector *process

	heap      int64 // live, before the first subscriber
	meanEvent int64 // bytes
}

// runBench runs everything and writes the table to out; when something fails,
// what was measured until then.
func runBench(ctx context.Context, s settings, out io.Writer, log progress) (err error) {
	b := &bench{settings: s, log: log, collectorLog: log, report: report{small: s.quick}}
	if s.log != "" {
		f, err := os.Create(s.log)
		if err != nil {
			return err
		}
		defer f.Close()
		b.collectorLog = f
	}
	if b.binary == "" {
		if b.binary, err = buildCollector(ctx, log); err != nil {
			return err
		}
	}
	err = b.main(ctx)
	if err == nil && len(b.growthSizes) > 0 {
		if growthErr := b.growth(ctx); growthErr != nil {
			err = fmt.Errorf("growth: %w", growthErr)
		}
	}
	if err == nil && (b.admissions > 0 || b.changes > 0) {
		if wiringErr := b.wiring(ctx); wiringErr != nil {
			err = fmt.Errorf("wiring: %w", wiringErr)
		}
	}
	return errors.Join(err, b.report.write(out))
}

// main measures at the full size.
func (b *bench) main(ctx context.Context) (err error) {
	if b.stage, err = newStage(ctx, b.log, b.settings); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stage.stop()) }()
	if err := b.stage.fill(ctx, world{b.nodes, b.pods, b.replicas}); err != nil {
		return err
	}
	if b.collector, err = startCollector(ctx, b.collectorLog, b.binary, b.stage.cluster.Kubeconfig(), b.stage.dir); err != nil {
		return err
	}
	defer b.collector.kill()
	if err := b.firstList(ctx); err != nil {
		return err
	}
	var pods string
	if b.reflector, pods, err = startSelf(ctx, b.log, reflectorCommand, "--kubeconfig", b.stage.cluster.Kubeconfig()); err != nil {
		return err
	}
	defer b.reflector.kill()
	b.log.say("bare reflector has %s pods", pods)
	steps := []func(context.Context) error{b.firstSync, b.served, b.latency}
	if b.stuckFor > 0 {
		steps = append(steps, b.stuck)
	}
	steps = append(steps, b.inventory)
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return b.collector.explain(err)
		}
	}
	return nil
}

// firstList looks at a collector that nobody has subscribed to.
func (b *bench) firstList(ctx context.Context) (err error) {
	s, err := b.collector.scrape(ctx)
	if err != nil {
		return err
	}
	slowest := 0.0
	for _, v := range s.each("metawire_source_first_list_seconds") {
		slowest = max(slowest, v)
	}
	pods := b.stage.totalPods()
	b.report.note("first list", fmt.Sprintf("%.2f s", slowest), fmt.Sprintf("%d pods; ready %.2f s after the start", pods, b.collector.readyAfter.Seconds()))
	if b.heap, err = b.collector.liveHeap(ctx); err != nil {
		return err
	}
	b.log.say("collector ready after %s; live heap %s", b.collector.readyAfter.Round(time.Millisecond), mib(b.heap))
	return nil
}

// served looks at the live heap when every object has been sent once, so that
// what is kept for sending is there, and nobody is subscribed.
func (b *bench) served(ctx context.Context) error {
	heap, err := b.collector.liveHeap(ctx)
	if err != nil {
		return err
	}
	pods := b.stage.totalPods()
	b.report.judge(goalHeap, mib(heap), fmt.Sprintf("before the first subscriber %s, %d pods", mib(b.heap), pods), float64(heap)/float64(pods)/(1<<10))
	return nil
}

// buildCollector builds bin/collector of the module that this is part of, as
// the image has it, and returns its path.
func buildCollector(ctx context.Context, log progress) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	binary := filepath.Join(root, "bin", "collector")
	log.say("building %s", binary)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/collector")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the collector: %w: %s", err, out)
	}
	return binary, nil
}
