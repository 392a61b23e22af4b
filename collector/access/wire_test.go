package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/stream"
	"github.com/metawire/metawire/internal/ticket"
)

// listener accepts connections that come from another address than loopback, as
// far as the server can see.
type listener struct {
	net.Listener
	from atomic.Pointer[net.TCPAddr]
}

type connection struct {
	net.Conn
	remote net.Addr
}

func (c connection) RemoteAddr() net.Addr { return c.remote }
func (connection) LocalAddr() net.Addr    { return &net.TCPAddr{IP: net.IPv4(10, 9, 9, 9), Port: 45000} }

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return connection{c, l.from.Load()}, nil
}

func listen(t *testing.T) *listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &listener{Listener: l}
}

// certificate returns one for 127.0.0.1 and what trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.TLS.Certificates[0], roots
}

// authorizer is a guard as the stream wants one.
type authorizer struct{ *Guard }

func (a authorizer) Authorize(ctx context.Context, nodeName string) (stream.Leave, error) {
	g, err := a.Guard.Authorize(ctx, nodeName)
	return stream.Leave{Node: g.Node, Revoked: g.Revoked, By: string(g.By), Pod: g.Pod}, err
}

// TestWire: on the listener with TLS addresses, tickets and tokens count; on
// the second, in plaintext, no token does.
func TestWire(t *testing.T) {
	w := newWorld(t, Options{Wait: 200 * time.Millisecond})
	registry := prometheus.NewRegistry()
	hub := fanout.NewHub(fanout.NewMetrics(registry), fanout.Options{})
	for _, node := range []string{"node-1", "node-2"} {
		hub.Apply(relation.Object{Kind: relation.Pod, Namespace: "n", Name: node, UID: "pod-of-" + node, Node: node,
			Event: metadata.Encode("Pod", metadata.Meta{Name: node, Namespace: "n", UID: "pod-of-" + node}, &metadata.Status{})})
	}
	cert, roots := certificate(t)
	synced := make(chan struct{})
	close(synced)
	server := stream.New(hub, synced, slog.New(slog.DiscardHandler), stream.NewMetrics(registry), stream.Options{
		Burst: 100, Rate: 100, Linger: time.Millisecond, Stop: 5 * time.Second, Authorizer: authorizer{w.Guard},
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}},
		Register: func(g grpc.ServiceRegistrar) {
			ticket.RegisterTicketsServer(g, NewTickets(w.Guard, NewReviews(w.reviewer, nil)))
		},
	})
	secured, plain := listen(t), listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, secured, plain) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	with := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "127.0.0.1"})
	for name, c := range map[string]struct {
		on          *listener
		from        string
		sent, token string
		issue       bool
		want        codes.Code
	}{
		"an address":                    {secured, "10.1.0.10", "node-1", "", false, codes.OK},
		"an address, plaintext":         {plain, "10.1.0.10", "node-1", "", false, codes.OK},
		"another's address, plaintext":  {plain, "10.2.0.10", "node-1", "", false, codes.PermissionDenied},
		"nobody's address, plaintext":   {plain, "172.16.0.9", "node-1", "", false, codes.Aborted},
		"a ticket":                      {secured, "10.1.0.10", w.ticket("node-1", "falco-1"), "", false, codes.OK},
		"a ticket, plaintext":           {plain, "10.1.0.10", w.ticket("node-1", "falco-1"), "", false, codes.OK},
		"a stolen ticket, plaintext":    {plain, "10.2.0.10", w.ticket("node-1", "falco-1"), "", false, codes.PermissionDenied},
		"a token":                       {secured, "172.16.0.9", "node-1", "viewer", false, codes.OK},
		"a token, plaintext":            {plain, "172.16.0.9", "node-1", "viewer", false, codes.Unauthenticated},
		"asks for a ticket":             {secured, "10.1.0.10", "", "pod", true, codes.OK},
		"asks for a ticket, plaintext":  {plain, "10.1.0.10", "", "pod", true, codes.Unauthenticated},
		"asks for a ticket, no token":   {secured, "10.1.0.10", "", "", true, codes.Unauthenticated},
		"asks for another pod's ticket": {secured, "10.2.0.10", "", "pod", true, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			c.on.from.Store(&net.TCPAddr{IP: net.ParseIP(c.from), Port: 1})
			creds := with
			if c.on == plain {
				creds = insecure.NewCredentials()
			}
			conn, err := grpc.NewClient(c.on.Addr().String(), grpc.WithTransportCredentials(creds))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if c.token != "" {
				ctx = grpcmetadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
			}
			if c.issue {
				if _, err := ticket.NewTicketsClient(conn).Issue(ctx, &ticket.IssueRequest{}); status.Code(err) != c.want {
					t.Errorf("%v, want %s", err, c.want)
				}
				return
			}
			s, err := metadata.NewMetadataClient(conn).Watch(ctx, &metadata.Selector{NodeName: c.sent, ResourceKinds: map[string]string{"Pod": "true"}})
			if err != nil {
				t.Fatal(err)
			}
			e, err := s.Recv()
			if status.Code(err) != c.want || err == nil && e.GetUid() != "pod-of-node-1" {
				t.Errorf("%v, %v; want %s", e, err, c.want)
			}
		})
	}
}
