package collector_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/stream"
	"github.com/metawire/metawire/internal/reload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

const configuration = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: %q}
metrics: {address: %q}
stream:
  enabled: true
  address: %q
  tls: {mode: disabled}
  authorization: disabled
`

// running is a collector without an API server, and its configuration file.
type running struct {
	*collector.Collector
	health, metrics, stream string // addresses
	file                    string
	data                    []byte
	logs                    *logs
	end                     context.CancelFunc
	done                    <-chan error // what Run returned
}

// run runs a collector until the end of the test at the latest.
func run(t *testing.T) *running {
	t.Helper()
	r := &running{
		health: freeAddress(t), metrics: freeAddress(t), stream: freeAddress(t),
		file: filepath.Join(t.TempDir(), "collector.yaml"), logs: &logs{},
	}
	r.write(t, fmt.Sprintf(configuration, r.health, r.metrics, r.stream))
	cfg, data, err := config.Load(r.file)
	if err != nil {
		t.Fatal(err)
	}
	r.data = data
	r.Collector, err = collector.New(cfg, &rest.Config{Host: "http://" + freeAddress(t)}, slog.New(slog.NewTextHandler(r.logs, nil)), options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r.end, r.done = cancel, done
	var all sync.WaitGroup
	all.Go(func() { done <- r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	r.answers(t, "healthz", http.StatusOK, "ok")
	return r
}

// options make what takes minutes take moments.
func options() collector.Options {
	return collector.Options{
		Reload: reload.Options{Poll: time.Millisecond, Spread: time.Millisecond, Leave: time.Second},
		Stream: stream.Options{Linger: time.Millisecond, Stop: 5 * time.Second},
	}
}

func (r *running) write(t *testing.T, text string) {
	t.Helper()
	// As kubelet does: at no time is there half a file.
	if err := os.WriteFile(r.file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		t.Fatal(err)
	}
}

// answers waits until the health server answers so.
func (r *running) answers(t *testing.T, path string, code int, words ...string) {
	t.Helper()
	eventually(t, func() error {
		got, body := get(t, "http://"+r.health+"/"+path)
		for _, w := range words {
			if got != code || !strings.Contains(body, w) {
				return fmt.Errorf("/%s answers %d, want %d and %q: %s", path, got, code, w, body)
			}
		}
		return nil
	})
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
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
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func eventually(t *testing.T, condition func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", patience, err)
		}
	}
}

// TestConfigChange: a file that cannot be used is reported and ignored; one
// that can be ends the process: not ready at first, so that no newcomers come,
// then drained.
func TestConfigChange(t *testing.T) {
	r := run(t)
	conn, err := grpc.NewClient(r.stream, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	subscriber, err := metadata.NewMetadataClient(conn).Watch(t.Context(), &metadata.Selector{NodeName: "node"})
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan error, 1)
	go func() { changed <- r.WatchConfig(t.Context(), r.file, r.data) }()
	for _, c := range []struct{ text, says string }{
		{string(r.data) + "  oops: 1\n", "oops"},
		{strings.Replace(string(r.data), "{mode: disabled}", "{mode: files, certFile: /no/crt, keyFile: /no/key}", 1), "/no/crt"},
		{string(r.data) + "clusterID: a\ninventory: {enabled: true, resources: [pods]}\n", "inventory.endpoint"},
	} {
		r.write(t, c.text)
		eventually(t, func() error {
			if text := r.logs.String(); !strings.Contains(text, c.says) || !strings.Contains(text, "going on with the old one") {
				return fmt.Errorf("%q is not in the log: %s", c.says, text)
			}
			return nil
		})
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if !strings.Contains(r.logs.String(), "no such file") {
			return errors.New("that the file is gone is not in the log")
		}
		return nil
	})
	select {
	case err := <-changed:
		t.Fatalf("a file that cannot be used ended it: %v", err)
	default:
	}
	r.write(t, string(r.data)+"  maxAge: 1h\n")
	r.answers(t, "readyz", http.StatusServiceUnavailable, "draining")
	select {
	case err := <-r.done:
		t.Fatalf("it ended before it was to: %v", err)
	case err := <-changed:
		if !errors.Is(err, reload.ErrChanged) {
			t.Fatalf("WatchConfig: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the change was not seen")
	}
	r.end()
	if _, err := subscriber.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the stream ended with %v, want ABORTED", err)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestConfigThatStays: reading it again and again changes nothing.
func TestConfigThatStays(t *testing.T) {
	r := run(t)
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error, 1)
	go func() { returned <- r.WatchConfig(ctx, r.file, r.data) }()
	r.write(t, string(r.data)) // another file, the same text
	r.answers(t, "readyz", http.StatusServiceUnavailable, "Pod: not listed yet", "EndpointSlice: not listed yet")
	cancel()
	if err := <-returned; err != nil {
		t.Errorf("WatchConfig: %v", err)
	}
}

// TestTakenAddress names the key and the address, and leaves nothing open.
func TestTakenAddress(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for i, key := range []string{"health.address", "metrics.address", "stream.address"} {
		addresses := []any{freeAddress(t), freeAddress(t), freeAddress(t)}
		addresses[i] = taken.Addr().String()
		cfg, err := config.Decode(fmt.Appendf(nil, configuration, addresses...))
		if err != nil {
			t.Fatal(err)
		}
		c, err := collector.New(cfg, &rest.Config{Host: "http://127.0.0.1:1"}, slog.New(slog.DiscardHandler), options())
		if err != nil {
			t.Fatal(err)
		}
		err = c.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("error does not name %s and %s: %v", key, taken.Addr(), err)
		}
		for j, a := range addresses {
			if j == i {
				continue
			}
			address := fmt.Sprint(a)
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
			if err != nil {
				t.Errorf("%s is still open: %v", address, err)
				continue
			}
			_ = l.Close()
		}
	}
}

// TestMetrics: what is served follows the conventions.
func TestMetrics(t *testing.T) {
	r := run(t)
	code, body := get(t, "http://"+r.metrics+"/metrics")
	if code != http.StatusOK || !strings.Contains(body, "metawire_") {
		t.Fatalf("/metrics answers %d: %s", code, body)
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

// freeAddress returns a loopback address below the range that the kernel takes
// ports for connections from.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000)))
		if err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// logs is what was logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
