package integration_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// collector is the collector as a process.
type collector struct {
	cmd                     *exec.Cmd
	config                  string // its configuration file
	stream, health, metrics string // addresses
	logs                    *log
	exited                  chan struct{} // closed when it has
}

// setup is what a test's collector differs in.
type setup struct {
	kubeconfig string
	env        []string
	tls        string // the YAML of stream.tls
	text       string // of the file, in place of configuration
	authorize  string // stream.authorization of configuration, default disabled
}

// configuration is a collector's.
const configuration = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: %q}
metrics: {address: %q}
stream:
  enabled: true
  address: %q
  tls: %s
  authorization: %s
`

// start runs a collector until the end of the test at the latest, and waits
// until it listens.
func start(t *testing.T, s setup) *collector {
	t.Helper()
	if s.tls == "" {
		s.tls = "{mode: disabled}"
	}
	c := &collector{
		config: filepath.Join(t.TempDir(), "collector.yaml"),
		stream: freeAddress(t), health: freeAddress(t), metrics: freeAddress(t),
		logs: &log{}, exited: make(chan struct{}),
	}
	text := fmt.Sprintf(configuration, c.health, c.metrics, c.stream, s.tls, cmp.Or(s.authorize, "disabled"))
	if s.text != "" {
		text = fmt.Sprintf(s.text, c.health, c.metrics, c.stream, s.tls)
	}
	writeFile(t, c.config, text)
	c.cmd = exec.Command(program, "--config", c.config, "--kubeconfig", s.kubeconfig, "--log-level", "debug", "--log-format", "text")
	c.cmd.Env = append(os.Environ(), s.env...)
	c.cmd.Stdout, c.cmd.Stderr = c.logs, c.logs
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
		if t.Failed() {
			t.Logf("the collector at %s logged:\n%s", c.stream, c.logs)
		}
	})
	eventually(t, func() error {
		if code, body := c.get(t, "healthz"); code != http.StatusOK {
			return fmt.Errorf("/healthz answers %d: %s", code, body)
		}
		return nil
	})
	return c
}

// started is start and waits until the collector is ready.
func started(t *testing.T, s setup) *collector {
	t.Helper()
	c := start(t, s)
	c.waitReady(t)
	return c
}

func (c *collector) waitReady(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		code, body := c.get(t, "readyz")
		if code != http.StatusOK {
			return fmt.Errorf("/readyz answers %d: %s", code, body)
		}
		return nil
	})
}

// get asks the health server; the code is 0 when it does not answer.
func (c *collector) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	return fetch(t, "http://"+c.health+"/"+path)
}

func fetch(t *testing.T, url string) (code int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// metric returns the sum of a metric over the series that have the labels.
func (c *collector) metric(t *testing.T, name string, labels map[string]string) float64 {
	t.Helper()
	code, body := fetch(t, "http://"+c.metrics+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", code, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
series:
	for _, m := range families[name].GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		for k, v := range labels {
			if has[k] != v {
				continue series
			}
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

func (c *collector) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the end of the process and returns its code.
func (c *collector) exit(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-c.exited:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("the collector has not ended within %s", within)
		return 0
	}
}

// log is what a process wrote.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// line waits for a line that has all the words in it.
func (l *log) line(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, func() error {
	lines:
		for line := range strings.Lines(l.String()) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("no log line with %q", words)
	})
}

// freeAddress returns a loopback address below the range that the kernel takes
// ports for connections from, so that it stays free until it is listened on.
func freeAddress(t *testing.T) string {
	t.Helper()
	var errs []error
	for range 100 {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000)))
		if err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
		errs = append(errs, err)
	}
	t.Fatal(errors.Join(errs...))
	return ""
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
