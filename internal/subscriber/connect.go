package subscriber

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/metadata"
)

// Why no connection came about; one of them is in the error of Run then.
var (
	ErrUnreachable = errors.New("cannot be reached")
	ErrNoAnswer    = errors.New("no gRPC server answers")
	ErrTLS         = errors.New("the server speaks TLS, the subscriber does not")
	ErrPlaintext   = errors.New("the server does not speak TLS, the subscriber does")
	ErrCertificate = errors.New("the server's certificate is not accepted")
)

// explainTimeout bounds the search for the reason of a failure.
const explainTimeout = 2 * time.Second

// Target is the server to connect to.
type Target struct {
	Addr string // host:port, the host of an IPv6 address in brackets
	// CA is a PEM file with the authorities to accept; empty is plaintext.
	CA string
	// ServerName is the name that the certificate must carry, default the host
	// of Addr.
	ServerName string
	// Token returns the bearer token to present; nil presents none. It is asked
	// at each attempt, and only with TLS: a token is never sent in plaintext.
	Token func() (string, error)
	// Dial connects instead of TCP to Addr, which then only names the target.
	Dial func(ctx context.Context) (net.Conn, error)
	// PEM are the authorities to accept, instead of the file CA.
	PEM []byte
}

// Secure reports whether the connection is to be encrypted.
func (t Target) Secure() bool { return t.CA != "" || len(t.PEM) > 0 }

// bearer presents a token.
type bearer func() (string, error)

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b()
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return true }

// dialer connects to one target.
type dialer struct {
	addr    string
	timeout time.Duration
	creds   credentials.TransportCredentials
	tls     *tls.Config // nil: plaintext
	token   bearer      // nil: none
	connect func(ctx context.Context) (net.Conn, error)
}

// dialer reads the CA file, once: as the plugin does. A token that cannot be had
// is an error here already: an attempt to connect would not tell of it.
func (t Target) dialer(timeout time.Duration) (*dialer, error) {
	host, _, err := net.SplitHostPort(t.Addr)
	if err != nil {
		return nil, fmt.Errorf("address %q is not HOST:PORT: %w", t.Addr, err)
	}
	d := &dialer{addr: t.Addr, timeout: timeout, creds: insecure.NewCredentials(), connect: t.Dial}
	if d.connect == nil {
		d.connect = func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", t.Addr) }
	}
	if !t.Secure() {
		if t.Token != nil {
			return nil, errors.New("a token is sent over TLS only: a CA file is needed")
		}
		return d, nil
	}
	bundle, from := t.PEM, "the authorities that were found"
	if t.CA != "" {
		if bundle, err = os.ReadFile(t.CA); err != nil {
			return nil, fmt.Errorf("read the CA file: %w", err)
		}
		from = fmt.Sprintf("CA file %q", t.CA)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s: no PEM certificate in it", from)
	}
	d.tls = &tls.Config{RootCAs: pool, ServerName: cmp.Or(t.ServerName, host), MinVersion: tls.VersionTLS12}
	d.creds, d.token = credentials.NewTLS(d.tls), t.Token
	if t.Token != nil {
		if _, err := t.Token(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// TokenFile returns a Token that reads the file anew each time: what is
// projected into a pod is renewed.
func TokenFile(name string) func() (string, error) {
	return func() (string, error) {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	}
}

// subscribe connects and sends the selector. The caller hangs up, which ends
// the stream, as ctx does.
func (d *dialer) subscribe(ctx context.Context, s *metadata.Selector) (grpc.ServerStreamingClient[metadata.Event], func(), error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(d.creds),
		// Go where the address says, as explain does.
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.connect(ctx) }),
	}
	if d.token != nil {
		options = append(options, grpc.WithPerRPCCredentials(d.token))
	}
	conn, err := grpc.NewClient("passthrough:///"+d.addr, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("address %q: %w", d.addr, err)
	}
	watching, cancel := context.WithCancel(ctx)
	hangUp := func() {
		cancel()
		_ = conn.Close() // fails only if it is closed already
	}
	// Watch blocks until there is a connection, and fails when the first attempt
	// at one does.
	timer := time.AfterFunc(d.timeout, cancel)
	stream, err := metadata.NewMetadataClient(conn).Watch(watching, s)
	if inTime := timer.Stop(); inTime && err == nil {
		return stream, hangUp, nil
	} else if !inTime {
		err = fmt.Errorf("nothing within %s", d.timeout)
	}
	hangUp()
	return nil, nil, fmt.Errorf("connect to %s: %w", d.addr, d.explain(ctx, err))
}

// explain tries the connection by hand to find out why it failed: gRPC tells
// only in words, which are the answer when nothing better is found.
func (d *dialer) explain(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	raw, err := d.connect(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer raw.Close()
	config := d.tls
	if config == nil {
		config = &tls.Config{InsecureSkipVerify: true} // asks only whether the server speaks TLS
	}
	cause = fmt.Errorf("%w: %s", ErrNoAnswer, status.Convert(cause).Message())
	err = tls.Client(raw, config).HandshakeContext(ctx)
	var (
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
	)
	switch {
	case d.tls == nil && err == nil:
		return ErrTLS
	case d.tls == nil:
		return cause
	case errors.As(err, &certificate):
		return fmt.Errorf("%w: %w", ErrCertificate, certificate.Err)
	case errors.As(err, &record):
		return ErrPlaintext
	}
	return cause
}
