// Package stream serves the gRPC contract with Falco's k8smeta plugin: it paces
// what the hub has pending for each subscriber, ends streams with the statuses
// that the plugin comes back from, and drains them before the process ends.
package stream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/metadata"
)

// Options configures a Server. The zero values of the durations are right
// outside of tests.
type Options struct {
	// Burst is how many events a subscriber is sent at once, Rate how many a
	// second after that; both must be positive.
	Burst int
	Rate  float64
	// MaxAge ends streams with ABORTED at a random time in the second half of
	// it; zero is never.
	MaxAge time.Duration
	// TLS is nil for plaintext. It is for the first listener; the second, if
	// there is one, is plaintext.
	TLS *tls.Config
	// Authorizer decides who may read a node; nil: everybody may.
	Authorizer Authorizer
	// Register adds services that are served on the same listeners; nil: none.
	Register func(grpc.ServiceRegistrar)
	// Keepalive is how long a connection may be silent before it is pinged,
	// default 30s; KeepaliveTimeout how long an answer may take, default 20s.
	Keepalive, KeepaliveTimeout time.Duration
	// Linger is how long newcomers are still served after the drain began,
	// default 2s: so long a Service may go on sending them here.
	Linger time.Duration
	// Unnamed and Undecided bound the streams that are open without being
	// served, default 1,024 each; see held.
	Unnamed, Undecided int
	// Stop is when the drain ends by force, default 25s of the usual grace
	// period of 30s.
	Stop time.Duration
}

// Authorizer decides who may read a node's stream.
type Authorizer interface {
	// Authorize returns the leave to read the node that is meant by what the
	// subscriber sent as nodeName, which may be a ticket; who asks stands in the
	// gRPC context. It may block until more is known. The error is a status:
	// PERMISSION_DENIED or UNAUTHENTICATED ends the stream with a delay that
	// doubles.
	Authorize(ctx context.Context, nodeName string) (Leave, error)
}

// Leave is the leave to read a node.
type Leave struct {
	Node string
	// Revoked, which may be nil, is closed when the leave is over.
	Revoked <-chan struct{}
	// By is what the leave stands on, and Pod the UID of the pod that has it,
	// empty if that is not known: both only for those who ask who subscribes.
	By, Pod string
}

// drainInterval is the mean time between two streams' ends in a drain: 50 a
// second, which another replica takes without effort. maxDrainSpread bounds the
// whole.
const (
	drainInterval  = 20 * time.Millisecond
	maxDrainSpread = 20 * time.Second
)

// Server serves the stream.
type Server struct {
	metadata.UnimplementedMetadataServer

	hub     *fanout.Hub
	synced  <-chan struct{}
	log     *slog.Logger
	metrics *Metrics
	options Options

	unnamed   *held
	undecided *held
	open      open
	told      *rate.Limiter // log lines about subscribers that nobody knows
	streams   atomic.Int64
	draining  chan struct{} // closed when streams are to end
	drainedBy time.Time     // when the last is to end; set before draining is closed
	forced    chan struct{} // closed when waiting is over
	always    chan struct{} // closed: more is pending
}

// New returns a server that sends nothing before synced is closed.
func New(hub *fanout.Hub, synced <-chan struct{}, log *slog.Logger, m *Metrics, o Options) *Server {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Keepalive, 30*time.Second)
	def(&o.KeepaliveTimeout, 20*time.Second)
	def(&o.Linger, 2*time.Second)
	def(&o.Stop, 25*time.Second)
	always := make(chan struct{})
	close(always)
	return &Server{
		hub: hub, synced: synced, log: log, metrics: m, options: o,
		unnamed: newHeld(cmp.Or(o.Unnamed, mostUnnamed)), undecided: newHeld(cmp.Or(o.Undecided, mostUndecided)),
		told: rate.NewLimiter(rate.Every(10*time.Second), 10), always: always, draining: make(chan struct{}), forced: make(chan struct{}),
	}
}

// Serve serves on the listener, and on a second one without TLS unless that is
// nil, until ctx ends; it closes both. Then it drains: it goes on accepting for
// Linger, ends all streams with ABORTED at random over a time that grows with
// their number, and returns when the last is gone or after Stop. It returns nil
// then. It is called once.
func (s *Server) Serve(ctx context.Context, l, plaintext net.Listener) error {
	servers := []*grpc.Server{s.server(s.options.TLS, s)}
	listeners := []net.Listener{l}
	if plaintext != nil {
		servers, listeners = append(servers, s.server(nil, legacy{s})), append(listeners, plaintext)
	}
	failed := make(chan error, len(servers))
	for i, g := range servers {
		go func() { failed <- served(g, listeners[i]) }()
	}
	select {
	case err := <-failed:
		for _, g := range servers {
			g.Stop()
		}
		for range servers[1:] { // the first end was the one that failed
			err = errors.Join(err, <-failed)
		}
		return err
	case <-ctx.Done():
	}
	s.drain(servers)
	var first error
	for range servers {
		if err := <-failed; first == nil {
			first = err
		}
	}
	return first
}

// legacy serves the listener without TLS, and counts who uses it: who does not
// need no old Service.
type legacy struct{ *Server }

// Watch implements metadata.MetadataServer.
func (l legacy) Watch(sel *metadata.Selector, stream grpc.ServerStreamingServer[metadata.Event]) error {
	l.metrics.legacy.Inc()
	defer l.metrics.legacy.Dec()
	return l.serve(sel, stream, true)
}

// server returns a server of all services.
func (s *Server) server(secured *tls.Config, m metadata.MetadataServer) *grpc.Server {
	g := grpc.NewServer(s.serverOptions(secured)...)
	metadata.RegisterMetadataServer(g, m)
	if s.options.Register != nil {
		s.options.Register(g)
	}
	return g
}

func served(g *grpc.Server, l net.Listener) error {
	if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve stream on %s: %w", l.Addr(), err)
	}
	return nil
}

// drain returns when every stream has ended, at the latest after Stop.
func (s *Server) drain(servers []*grpc.Server) {
	force := time.NewTimer(s.options.Stop)
	defer force.Stop()
	s.log.Info("draining", "streams", s.streams.Load())
	<-time.After(s.options.Linger)
	spread := min(time.Duration(s.streams.Load())*drainInterval, maxDrainSpread)
	s.drainedBy = time.Now().Add(spread)
	close(s.draining)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Until the last stream has its status: a graceful stop tells clients
		// to go, and refuses those who come.
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			if s.streams.Load() == 0 {
				tick.Stop()
				for _, g := range servers {
					g.GracefulStop()
				}
				return
			}
			select {
			case <-tick.C:
			case <-s.forced:
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-force.C:
		s.log.Warn("ending streams by force: their subscribers do not read", "streams", s.streams.Load())
		close(s.forced)
		for _, g := range servers {
			g.Stop()
		}
		<-ended
	}
}

func (s *Server) serverOptions(secured *tls.Config) []grpc.ServerOption {
	o := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		// The plugin sends no pings of its own and answers ours: they find the
		// peers that vanished without a FIN.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: s.options.Keepalive, Timeout: s.options.KeepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// Thousands of connections that are mostly idle: write buffers are
		// shared by default, and subscribers send little.
		grpc.ReadBufferSize(1 << 10),
		// Before anybody knows who it is, a request takes no more memory than
		// a selector and a bearer token need.
		grpc.MaxRecvMsgSize(16 << 10),
		grpc.MaxHeaderListSize(32 << 10),
		grpc.MaxConcurrentStreams(1000),
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(20 * time.Second),
	}
	if secured != nil {
		o = append(o, grpc.Creds(credentials.NewTLS(secured)))
	}
	return o
}
