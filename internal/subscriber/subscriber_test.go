package subscriber_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/internal/subscriber"
	"github.com/metawire/metawire/internal/subscriber/subscribertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	podEvent  = &metadata.Event{Reason: metadata.Create, Uid: "p1", Kind: "Pod"}
	errEnough = errors.New("enough")
)

// observer ends the subscription at the wanted number of events.
type observer struct {
	wanted     int
	events     []string
	connected  int
	reasons    []string
	onRetrying func()
}

func (o *observer) Connected(time.Duration) { o.connected++ }

func (o *observer) Event(e *metadata.Event) error {
	o.events = append(o.events, e.GetUid())
	if len(o.events) == o.wanted {
		return errEnough
	}
	return nil
}

func (o *observer) Retrying(reason error, _ time.Duration) {
	o.reasons = append(o.reasons, reason.Error())
	if o.onRetrying != nil {
		o.onRetrying()
	}
}

func options(addr string) subscriber.Options {
	return subscriber.Options{Target: subscriber.Target{Addr: addr}, Node: "n1", Kinds: []string{"Pod", "Service"}, Retry: time.Millisecond}
}

// closedAddr is an address where nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func TestSelectorArrivesAndEventsComeBack(t *testing.T) {
	var got *metadata.Selector
	addr := subscribertest.Serve(t, func(n int, s *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error {
		got = s
		return subscribertest.Hold(podEvent)(n, s, out)
	})
	obs := &observer{wanted: 1}
	if err := subscriber.Run(t.Context(), options(addr), obs); !errors.Is(err, errEnough) {
		t.Fatalf("Run() = %v, want the observer's error", err)
	}
	if diff := cmp.Diff([]string{"p1"}, obs.events); diff != "" {
		t.Error("events:", diff)
	}
	if diff := cmp.Diff(map[string]string{"Pod": "true", "Service": "true"}, got.GetResourceKinds()); diff != "" || got.GetNodeName() != "n1" {
		t.Errorf("node %q, kinds %s", got.GetNodeName(), diff)
	}
}

func TestEndOfContextIsNoError(t *testing.T) {
	addr := subscribertest.Serve(t, subscribertest.Hold(podEvent))
	ctx, cancel := context.WithCancel(t.Context())
	obs := &stopper{cancel: cancel}
	if err := subscriber.Run(ctx, options(addr), obs); err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
}

// stopper ends the context at the first event.
type stopper struct {
	observer
	cancel context.CancelFunc
}

func (s *stopper) Event(*metadata.Event) error {
	s.cancel()
	return nil
}

func TestStreamIsOpenedAgain(t *testing.T) {
	for _, code := range []codes.Code{codes.Aborted, codes.Internal, codes.ResourceExhausted, codes.Unavailable, codes.Unknown} {
		t.Run(code.String(), func(t *testing.T) {
			addr := subscribertest.Serve(t, func(n int, s *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error {
				if n < 2 {
					return status.Error(code, "draining")
				}
				return subscribertest.Hold(podEvent)(n, s, out)
			})
			obs := &observer{wanted: 1}
			if err := subscriber.Run(t.Context(), options(addr), obs); !errors.Is(err, errEnough) {
				t.Fatalf("Run() = %v, want the observer's error", err)
			}
			want := "stream ended: " + code.String() + `: "draining"`
			if diff := cmp.Diff([]string{want, want}, obs.reasons); diff != "" || obs.connected != 3 {
				t.Errorf("connected %d times, reasons %s", obs.connected, diff)
			}
		})
	}
}

func TestEndingsThatAreFinal(t *testing.T) {
	for name, tc := range map[string]struct {
		end     error
		refused bool
		want    string
	}{
		"permission denied": {status.Error(codes.PermissionDenied, "not your node"), true, `node "n1": refused by the collector: PermissionDenied: "not your node"`},
		"unauthenticated":   {status.Error(codes.Unauthenticated, "who are you"), true, `Unauthenticated: "who are you"`},
		"no such service":   {status.Error(codes.Unimplemented, "unknown service"), false, `watch node "n1" at 127.0.0.1:`},
		"ended with OK":     {nil, false, "ended the stream with OK"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := subscribertest.Serve(t, func(int, *metadata.Selector, grpc.ServerStreamingServer[metadata.Event]) error { return tc.end })
			obs := &observer{}
			err := subscriber.Run(t.Context(), options(addr), obs)
			if err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, subscriber.ErrRefused) != tc.refused {
				t.Errorf("Run() = %v, want %q in it, refused: %v", err, tc.want, tc.refused)
			}
			if len(obs.reasons) != 0 {
				t.Errorf("tried again after %q", obs.reasons)
			}
		})
	}
}

func TestWhyThereIsNoConnection(t *testing.T) {
	withTLS, ca := subscribertest.TLS(t, "collector.test")
	_, otherCA := subscribertest.TLS(t, "collector.test")
	secure := subscribertest.Serve(t, subscribertest.Hold(), withTLS)
	open := subscribertest.Serve(t, subscribertest.Hold())
	for name, tc := range map[string]struct {
		target subscriber.Target
		want   error
		text   string
	}{
		"nobody listens":       {subscriber.Target{Addr: closedAddr(t)}, subscriber.ErrUnreachable, "connection refused"},
		"plaintext to TLS":     {subscriber.Target{Addr: secure}, subscriber.ErrTLS, secure},
		"TLS to plaintext":     {subscriber.Target{Addr: open, CA: ca}, subscriber.ErrPlaintext, open},
		"another authority":    {subscriber.Target{Addr: secure, CA: otherCA, ServerName: "collector.test"}, subscriber.ErrCertificate, "unknown authority"},
		"another name":         {subscriber.Target{Addr: secure, CA: ca, ServerName: "other.test"}, subscriber.ErrCertificate, "collector.test"},
		"the name of the host": {subscriber.Target{Addr: secure, CA: ca}, subscriber.ErrCertificate, "127.0.0.1"},
		"closed at once":       {subscriber.Target{Addr: closing(t)}, subscriber.ErrNoAnswer, "connect to 127.0.0.1:"},
		"no answer":            {subscriber.Target{Addr: silent(t)}, subscriber.ErrNoAnswer, "nothing within 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options("")
			o.Target, o.ConnectTimeout = tc.target, 300*time.Millisecond
			obs := &observer{}
			err := subscriber.Run(t.Context(), o, obs)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Run() = %v, want %v with %q", err, tc.want, tc.text)
			}
			if obs.connected != 0 || len(obs.reasons) != 0 {
				t.Errorf("connected %d times, tried again after %q", obs.connected, obs.reasons)
			}
		})
	}
}

// silent is an address where connections are made and nothing is said.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// closing accepts connections and closes them, as a port-forward does when
// there is nothing behind it.
func closing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

func TestTLS(t *testing.T) {
	withTLS, ca := subscribertest.TLS(t, "collector.test")
	o := options(subscribertest.Serve(t, subscribertest.Hold(podEvent), withTLS))
	o.Target.CA, o.Target.ServerName = ca, "collector.test"
	if err := subscriber.Run(t.Context(), o, &observer{wanted: 1}); !errors.Is(err, errEnough) {
		t.Errorf("Run() = %v, want the observer's error", err)
	}
}

func TestTargetsThatMakeNoSense(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.crt")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		target subscriber.Target
		want   string
	}{
		"no port":        {subscriber.Target{Addr: "localhost"}, `address "localhost" is not HOST:PORT`},
		"no CA file":     {subscriber.Target{Addr: "localhost:1", CA: empty + ".not"}, empty + ".not"},
		"nothing in it":  {subscriber.Target{Addr: "localhost:1", CA: empty}, "no PEM certificate in it"},
		"IPv6, no port":  {subscriber.Target{Addr: "::1"}, "is not HOST:PORT"},
		"nothing at all": {subscriber.Target{}, `address "" is not HOST:PORT`},
	} {
		t.Run(name, func(t *testing.T) {
			o := options("")
			o.Target, o.Patience = tc.target, time.Hour // no use waiting
			if err := subscriber.Run(t.Context(), o, &observer{}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Run() = %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestPatienceWaitsForAServer(t *testing.T) {
	addr := closedAddr(t)
	o := options(addr)
	o.Patience = time.Minute
	obs := &observer{wanted: 1}
	obs.onRetrying = func() {
		if len(obs.reasons) == 2 {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			subscribertest.ServeOn(t, l, subscribertest.Hold(podEvent))
		}
	}
	if err := subscriber.Run(t.Context(), o, obs); !errors.Is(err, errEnough) || obs.connected != 1 {
		t.Errorf("Run() = %v after %d connections and %q, want the observer's error", err, obs.connected, obs.reasons)
	}
}

func TestReconnectPatienceEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kill := subscribertest.ServeOn(t, l, subscribertest.Hold(podEvent))
	o := options(l.Addr().String())
	o.ReconnectPatience = time.Second // for two tries, on a machine that has much to do
	obs := &killer{kill: kill}
	err = subscriber.Run(t.Context(), o, obs)
	if !errors.Is(err, subscriber.ErrUnreachable) || obs.connected != 1 || len(obs.reasons) < 2 {
		t.Errorf("Run() = %v after %d connections and %q, want it unreachable after a while", err, obs.connected, obs.reasons)
	}
}

// killer ends the server at the first event.
type killer struct {
	observer
	kill func()
}

func (k *killer) Event(*metadata.Event) error {
	k.kill()
	return nil
}
