package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// pluginKinds is the selection that the k8smeta plugin sends.
func pluginKinds() []string {
	return []string{"Pod", "Namespace", "Deployment", "Service", "ReplicaSet", "ReplicaController"}
}

// served is a server under test, and the hub that it serves from.
type served struct {
	server   *stream.Server
	hub      *fanout.Hub
	registry *prometheus.Registry
	logs     *logs
	address  string
	second   string // the address that is for who knows no TLS
	drain    context.CancelFunc
	done     <-chan error // what Serve returned
}

// serve starts a server on loopback that is drained and waited for at the end
// of the test. Without pacing of its own a test is not paced.
func serve(t *testing.T, o stream.Options, synced <-chan struct{}) *served {
	t.Helper()
	if o.Burst == 0 {
		o.Burst, o.Rate = 1_000_000, 1_000_000
	}
	if o.Linger == 0 {
		o.Linger = time.Millisecond
	}
	if o.Stop == 0 {
		o.Stop = 5 * time.Second
	}
	if synced == nil {
		synced = closed()
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{registry: prometheus.NewRegistry(), logs: &logs{}, address: l.Addr().String(), second: second.Addr().String()}
	s.hub = fanout.NewHub(fanout.NewMetrics(s.registry), fanout.Options{})
	log := slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.server = stream.New(s.hub, synced, log, stream.NewMetrics(s.registry), o)
	ctx, cancel := context.WithCancel(context.Background())
	returned := make(chan error, 1)
	s.drain, s.done = cancel, returned
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		returned <- s.server.Serve(ctx, l, second)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return s
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// conn returns a connection to the address, closed at the end of the test.
func conn(t *testing.T, address string, o ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(address, append(o, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// subscription is a client's stream.
type subscription struct {
	grpc.ServerStreamingClient[metadata.Event]
	cancel context.CancelFunc
}

// watch subscribes over a connection of its own. Waiting for an event ends
// after the tests' patience.
func (s *served) watch(t *testing.T, node string, kinds ...string) *subscription {
	t.Helper()
	return watch(t, conn(t, s.address), node, kinds...)
}

func watch(t *testing.T, c *grpc.ClientConn, node string, kinds ...string) *subscription {
	t.Helper()
	selection := map[string]string{}
	for _, k := range kinds {
		selection[k] = "true"
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := metadata.NewMetadataClient(c).Watch(ctx, &metadata.Selector{NodeName: node, ResourceKinds: selection})
	if err != nil {
		t.Fatal(err)
	}
	sub := &subscription{stream, cancel}
	t.Cleanup(cancel)
	return sub
}

// next returns the next event as "Reason Kind uid".
func (s *subscription) next(t *testing.T) string {
	t.Helper()
	e, err := s.recv()
	if err != nil {
		t.Fatalf("no event: %v", err)
	}
	return e.Reason + " " + e.Kind + " " + e.Uid
}

// expect receives exactly these events, in this order.
func (s *subscription) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := s.next(t); got != w {
			t.Fatalf("received %q, want %q", got, w)
		}
	}
}

// recv receives with the tests' patience.
func (s *subscription) recv() (*metadata.Event, error) {
	timer := time.AfterFunc(patience, s.cancel)
	defer timer.Stop()
	return s.Recv()
}

// ending reads the stream to its end: the events and the status.
func (s *subscription) ending() (events []*metadata.Event, code codes.Code) {
	for {
		e, err := s.recv()
		if err != nil {
			return events, status.Code(err) // io.EOF, which is OK, is Unknown: nor wanted
		}
		events = append(events, e)
	}
}

// metric returns a gauge's or a counter's value.
func (s *served) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
			if f.GetName() == name && strings.Join(got, ",") == strings.Join(labels, ",") {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s%v", name, labels)
	return 0
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// returned waits for the end of Serve.
func (s *served) returned(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.done:
		return err
	case <-time.After(patience):
		t.Fatalf("Serve has not returned within %s", patience)
		return nil
	}
}

func namespace(uid string) relation.Object {
	return relation.Object{Kind: relation.Namespace, Name: "n", UID: uid,
		Event: metadata.Encode("Namespace", metadata.Meta{Name: "n", UID: uid}, nil)}
}

// pod returns a pod of namespace n on the node; the labels make versions differ.
func pod(node, uid string, labels ...string) relation.Object {
	m := metadata.Meta{Name: uid, Namespace: "n", UID: uid}
	if len(labels) > 0 {
		m.Labels = map[string]string{"version": strings.Join(labels, "")}
	}
	return relation.Object{Kind: relation.Pod, Namespace: "n", Name: uid, UID: uid, Node: node,
		Event: metadata.Encode("Pod", m, &metadata.Status{})}
}

// services puts n services on the pods of a node, spread evenly.
func services(h *fanout.Hub, n int, pods ...string) {
	for i := range n {
		name := fmt.Sprintf("service-%d", i)
		h.Apply(relation.Object{Kind: relation.Service, Namespace: "n", Name: name, UID: name,
			Event: metadata.Encode("Service", metadata.Meta{Name: name, Namespace: "n", UID: name}, nil)})
		h.Apply(relation.Object{Kind: relation.EndpointSlice, Namespace: "n", Name: name, UID: "slice-" + name,
			Service: name, Endpoints: []string{pods[i%len(pods)]}})
	}
}

// node puts pods and services on node-1.
func node(h *fanout.Hub, pods, n int) {
	uids := make([]string, pods)
	for i := range uids {
		uids[i] = fmt.Sprintf("pod-%d", i)
		h.Apply(pod("node-1", uids[i]))
	}
	services(h, n, uids...)
}

func TestMetricsFollowTheConventions(t *testing.T) {
	problems, err := testutil.GatherAndLint(serve(t, stream.Options{}, nil).registry)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}
