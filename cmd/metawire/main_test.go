package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/stream"
)

// asMain makes the test binary the command line.
const asMain = "METAWIRE_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// output is what a command has written so far.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{} // has something if there is more than was looked at
}

func newOutput() *output { return &output{written: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.written <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// waitUntil waits until what was written is as wanted.
func (o *output) waitUntil(t *testing.T, what string, ok func(written string) bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok(o.String()) {
		select {
		case <-o.written:
		case <-deadline:
			t.Fatalf("no %s in\n%s", what, o)
		}
	}
}

func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	o.waitUntil(t, fmt.Sprintf("%q", text), func(s string) bool { return strings.Contains(s, text) })
}

// command is a command line that runs.
type command struct {
	stdout, stderr *output
	cancel         context.CancelFunc
	done           chan error
}

// start runs a command line; it is interrupted when the test ends.
func start(t *testing.T, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &command{newOutput(), newOutput(), cancel, make(chan error, 1)}
	go func() { c.done <- run(ctx, args, c.stdout, c.stderr) }()
	t.Cleanup(func() { cancel(); close(c.done) })
	return c
}

// interrupt does what a SIGINT does and returns how the command ended.
func (c *command) interrupt() error {
	c.cancel()
	return <-c.done
}

// collect serves the stream of an empty hub, as the collector does, and returns
// its address.
func collect(t *testing.T) (*fanout.Hub, string) {
	t.Helper()
	registry := prometheus.NewRegistry()
	hub := fanout.NewHub(fanout.NewMetrics(registry), fanout.Options{})
	synced := make(chan struct{})
	close(synced)
	s := stream.New(hub, synced, slog.New(slog.DiscardHandler), stream.NewMetrics(registry),
		stream.Options{Burst: 1000, Rate: 2000, Linger: time.Millisecond})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, nil) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error("serve:", err)
		}
	})
	return hub, l.Addr().String()
}

// object is an object of the namespace shop.
func object(kind relation.Kind, uid, name string) relation.Object {
	o := relation.Object{Kind: kind, UID: uid, Namespace: "shop", Name: name}
	if kind == relation.Namespace {
		o.Namespace = ""
	}
	o.Event = metadata.Encode(string(kind), metadata.Meta{Name: name, Namespace: o.Namespace, UID: uid}, nil)
	return o
}

// pod is a pod of worker-1 in the namespace shop.
func pod(uid, name, ip string) relation.Object {
	o := object(relation.Pod, uid, name)
	o.Node = "worker-1"
	o.Event = metadata.Encode(string(relation.Pod), metadata.Meta{Name: name, Namespace: "shop", UID: uid}, &metadata.Status{PodIP: ip})
	return o
}

// fill puts a pod, its namespace and its owner into the hub.
func fill(hub *fanout.Hub) {
	hub.Apply(object(relation.Namespace, "n1", "shop"))
	hub.Apply(object(relation.DaemonSet, "d1", "agent"))
	p := pod("p1", "agent-x1", "10.0.0.1")
	p.Owner = relation.Owner{Kind: "DaemonSet", UID: "d1"}
	hub.Apply(p)
}

// TestNoLinesOfClientGo: client-go logs an answer that breaks off; here the error
// is all that is said of it.
func TestNoLinesOfClientGo(t *testing.T) {
	kubeconfig := kubeconfigOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("{"))
	})
	c := exec.CommandContext(t.Context(), os.Args[0], "explain", "subscribers", "--kubeconfig", kubeconfig)
	c.Env = append(os.Environ(), asMain+"=1")
	out, err := c.CombinedOutput()
	if ended, ok := errors.AsType[*exec.ExitError](err); !ok || ended.ExitCode() != 1 {
		t.Errorf("it ends with %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "error: ") || !strings.Contains(line, "unexpected EOF") {
			t.Errorf("it says %q", line)
		}
	}
	if len(out) == 0 {
		t.Error("it says nothing")
	}
}
