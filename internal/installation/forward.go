package installation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // client-go's dialers still speak it
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// Dial connects to the stream of a collector that is ready, through the API
// server, as kubectl port-forward does but without a local port. Every call
// chooses anew: the collector of an earlier one may be gone.
func (i *Installation) Dial(ctx context.Context) (net.Conn, error) {
	pods, err := i.Pods(ctx, Collector)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 || !Ready(&pods[0]) {
		return nil, fmt.Errorf("none of the %d collectors in namespace %q is ready: kubectl -n %s get pods", len(pods), i.Namespace, i.Namespace)
	}
	return i.DialPort(ctx, &pods[0], "grpc")
}

// DialPod connects to a port of a pod of the release through the API server.
func (i *Installation) DialPod(ctx context.Context, pod string, port int) (net.Conn, error) {
	tunnel, err := i.tunnel(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("port-forward to pod %s/%s: %w", i.Namespace, pod, err)
	}
	unhook := context.AfterFunc(ctx, func() { _ = tunnel.Close() })
	defer unhook()
	header := http.Header{}
	header.Set(corev1.StreamType, corev1.StreamTypeError)
	header.Set(corev1.PortHeader, strconv.Itoa(port))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	failures, err := tunnel.CreateStream(header)
	if err == nil {
		_ = failures.Close() // nothing is written to it
		header.Set(corev1.StreamType, corev1.StreamTypeData)
		var data httpstream.Stream
		if data, err = tunnel.CreateStream(header); err == nil {
			c := &conn{Stream: data, tunnel: tunnel, addr: addr(pod + ":" + strconv.Itoa(port))}
			go c.follow(failures)
			return c, nil
		}
	}
	_ = tunnel.Close()
	return nil, fmt.Errorf("port-forward to pod %s/%s: %w", i.Namespace, pod, errors.Join(err, ctx.Err()))
}

// tunnel opens one to a pod. The dialers know no context: it is dropped when it
// comes too late.
func (i *Installation) tunnel(ctx context.Context, pod string) (httpstream.Connection, error) {
	target := i.api.CoreV1().RESTClient().Post().Resource("pods").Namespace(i.Namespace).Name(pod).SubResource("portforward").URL()
	type result struct {
		tunnel httpstream.Connection
		err    error
	}
	done := make(chan result, 1)
	go func() {
		tunnel, err := dialTunnel(i, target)
		done <- result{tunnel, err}
	}()
	select {
	case r := <-done:
		return r.tunnel, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.tunnel.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// dialTunnel tries WebSockets, and SPDY where the API server or what stands
// before it knows none.
func dialTunnel(i *Installation, target *url.URL) (httpstream.Connection, error) {
	transport, upgrader, err := spdy.RoundTripperFor(i.config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	current, err := portforward.NewSPDYOverWebsocketDialer(target, i.config)
	if err != nil {
		return nil, err
	}
	dialer := portforward.NewFallbackDialer(current, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	tunnel, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	return tunnel, err
}

// conn is one connection through a tunnel of its own.
type conn struct {
	httpstream.Stream

	tunnel httpstream.Connection
	addr   addr
}

// follow ends the connection when the other side reports a failure, such as a
// port on which nobody listens.
func (c *conn) follow(failures io.Reader) {
	if message, err := io.ReadAll(failures); err != nil || len(message) > 0 {
		_ = c.tunnel.Close()
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	_ = c.Reset()
	return c.tunnel.Close()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return addr("port-forward") }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.addr }

// SetDeadline implements net.Conn; there are no deadlines in a tunnel.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// addr is an end of a tunnel.
type addr string

// Network implements net.Addr.
func (addr) Network() string { return "port-forward" }

// String implements net.Addr.
func (a addr) String() string { return string(a) }
