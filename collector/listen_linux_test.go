package collector

import (
	"net"
	"syscall"
	"testing"

	"github.com/metawire/metawire/collector/config"
)

// TestStreamConnectionsHaveNoTCPKeepalive: together with the user timeout that
// gRPC sets, one lost probe would reset the connection, and Falco's plugin would
// come back later and later.
func TestStreamConnectionsHaveNoTCPKeepalive(t *testing.T) {
	local := config.Listener{Address: "127.0.0.1:0"}
	c := &Collector{cfg: &config.Config{Health: local, Metrics: local, Stream: config.Stream{Enabled: true, Address: local.Address}}}
	l, err := c.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []net.Listener{l.health, l.metrics, l.stream} {
		t.Cleanup(func() { _ = l.Close() })
	}
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.stream.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	server, err := l.stream.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	connection, ok := server.(*net.TCPConn)
	if !ok {
		t.Fatalf("a connection is a %T", server)
	}
	raw, err := connection.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var on int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		on, failed = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	if on != 0 {
		t.Error("TCP keepalive is on")
	}
}
