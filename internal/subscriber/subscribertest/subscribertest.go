// Package subscribertest is a stand-in for the collector on loopback, whose
// streams do what a test says.
package subscribertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/metawire/metawire/collector/metadata"
)

// Stream is what the server does with a stream, n being how many came before.
// When it returns, the stream ends with that error.
type Stream func(n int, s *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error

// Serve starts a server on a free port of 127.0.0.1 and returns its address.
// It is stopped when the test ends, and its streams with it.
func Serve(t *testing.T, stream Stream, o ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ServeOn(t, listener, stream, o...)
	return listener.Addr().String()
}

// ServeOn is Serve with a listener of the test's own. The function that it
// returns ends the server as if it were killed.
func ServeOn(t *testing.T, listener net.Listener, stream Stream, o ...grpc.ServerOption) (kill func()) {
	t.Helper()
	s := grpc.NewServer(o...)
	metadata.RegisterMetadataServer(s, &server{stream: stream})
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error("serve:", err)
		}
	})
	return s.Stop
}

type server struct {
	metadata.UnimplementedMetadataServer
	stream  Stream
	streams atomic.Int32
}

func (s *server) Watch(sel *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error {
	return s.stream(int(s.streams.Add(1))-1, sel, out)
}

// Hold sends the events and then keeps the stream open until the subscriber or
// the server ends it.
func Hold(events ...*metadata.Event) Stream {
	return func(_ int, _ *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error {
		for _, e := range events {
			if err := out.Send(e); err != nil {
				return err
			}
		}
		<-out.Context().Done()
		return out.Context().Err()
	}
}

// TLS returns the option that makes a server speak TLS, with a certificate for
// the name, and the PEM file of the authority to accept.
func TLS(t *testing.T, name string) (o grpc.ServerOption, caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return grpc.Creds(credentials.NewServerTLSFromCert(&certificate)), caFile
}
