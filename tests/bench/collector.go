package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// pollInterval is how often a condition is looked at.
const pollInterval = 20 * time.Millisecond

// collector is the collector under test, a process of its own.
type collector struct {
	*process
	stream, health, metrics string // addresses

	readyAfter time.Duration // from its start
	firstPeak  int64         // resident bytes at the most until it was ready
}

// startCollector blocks until the collector is ready.
func startCollector(ctx context.Context, log io.Writer, binary, kubeconfig, dir string) (*collector, error) {
	addresses, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	c := &collector{stream: addresses[0], health: addresses[1], metrics: addresses[2]}
	config := filepath.Join(dir, "collector.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
stream:
  enabled: true
  address: %q
  tls: {mode: disabled}
  authorization: disabled
health: {address: %q}
metrics: {address: %q}
`, c.stream, c.health, c.metrics), 0o600); err != nil {
		return nil, err
	}
	began := time.Now()
	if c.process, err = startProcess(log, nil, binary, "--config", config, "--kubeconfig", kubeconfig); err != nil {
		return nil, err
	}
	if err := c.until(ctx, c.ready); err != nil {
		c.kill()
		return nil, fmt.Errorf("wait until the collector is ready: %w", err)
	}
	c.readyAfter = time.Since(began)
	if _, c.firstPeak, err = residentMemory(c.pid); err != nil {
		c.kill()
		return nil, err
	}
	return c, nil
}

// freeAddresses returns loopback addresses that nobody listened on just now.
func freeAddresses(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// until blocks until the condition returns nil; when ctx or the process ends
// first it returns the condition's last error with it.
func (c *collector) until(ctx context.Context, condition func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.done:
			return fmt.Errorf("the collector ended: %w: %w", c.err, err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func (c *collector) ready(ctx context.Context) error {
	body, err := get(ctx, "http://"+c.health+"/readyz")
	if err != nil {
		return err
	}
	return body.Close()
}

// subscribers returns a condition: that so many are subscribed.
func (c *collector) subscribers(want int) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := c.scrape(ctx)
		if err != nil {
			return err
		}
		if n := s.sum("metawire_stream_subscribers"); n != float64(want) {
			return fmt.Errorf("%v subscribers, want %d", n, want)
		}
		return nil
	}
}

// sample is the collector's metrics at one moment.
type sample map[string]*dto.MetricFamily

func (c *collector) scrape(ctx context.Context) (sample, error) {
	body, err := get(ctx, "http://"+c.metrics+"/metrics")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	s, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return s, nil
}

// each returns the values of a family's series.
func (s sample) each(name string) (values []float64) {
	for _, m := range s[name].GetMetric() {
		values = append(values, m.GetGauge().GetValue()+m.GetCounter().GetValue()+float64(m.GetSummary().GetSampleCount()))
	}
	return values
}

// sum adds a family's series: for a summary, its observations.
func (s sample) sum(name string) (sum float64) {
	for _, v := range s.each(name) {
		sum += v
	}
	return sum
}

// liveHeap returns the bytes on the heap that are in use. It scrapes until the
// garbage collector ran, which the scrapes themselves bring about: the least
// that was allocated is what was live.
func (c *collector) liveHeap(ctx context.Context) (int64, error) {
	const collections = "go_gc_duration_seconds"
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	first, least := -1.0, int64(0)
	err := c.until(ctx, func(ctx context.Context) error {
		for range 20 {
			s, err := c.scrape(ctx)
			if err != nil {
				return err
			}
			if heap := int64(s.sum("go_memstats_heap_alloc_bytes")); least == 0 || heap < least {
				least = heap
			}
			ran := s.sum(collections)
			if first < 0 {
				first = ran
			}
			if ran >= first+2 {
				return nil
			}
		}
		return errors.New("its garbage collector has not run")
	})
	if err != nil {
		return 0, fmt.Errorf("measure the live heap: %w", err)
	}
	return least, nil
}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return resp.Body, nil
}
