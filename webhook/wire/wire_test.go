package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/internal/ticket"
	"github.com/metawire/metawire/internal/wiring"
)

const (
	goodTicket = "node-7/0f6f7a2c-uid/bWFj"
	library04  = "/usr/share/falco/plugins/libk8smeta.so"
)

// collector answers with what answer returns for the n-th call.
type collector struct {
	ticket.UnimplementedTicketsServer
	calls  atomic.Int32
	answer func(n int32) (string, error)
}

func (c *collector) Issue(ctx context.Context, _ *ticket.IssueRequest) (*ticket.IssueResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer the-token" {
		return nil, status.Errorf(codes.Unauthenticated, "authorization is %d values", len(got))
	}
	t, err := c.answer(c.calls.Add(1))
	return &ticket.IssueResponse{Ticket: t}, err
}

func always(t string, err error) func(int32) (string, error) {
	return func(int32) (string, error) { return t, err }
}

// certificate returns one for a name and the PEM to trust it by.
func certificate(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(bundle)
}

// serve serves tickets, on TLS if there is a certificate, and returns the port.
func serve(t *testing.T, tickets ticket.TicketsServer, cert *tls.Certificate) int {
	t.Helper()
	var options []grpc.ServerOption
	if cert != nil {
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(cert)))
	}
	server := grpc.NewServer(options...)
	ticket.RegisterTicketsServer(server, tickets)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		// A test that never calls may end before Serve began.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return port(t, listener)
}

func port(t *testing.T, l net.Listener) int {
	t.Helper()
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%v is no TCP address", l.Addr())
	}
	return address.Port
}

func task(port int) wiring.Task {
	return wiring.Task{
		Host: "localhost", Port: port, Command: []string{"/usr/bin/falco"}, FalcoVersion: "0.43.1", NodeVariable: "FALCO_K8S_NODE_NAME",
		Plugin: wiring.Plugin{Source: wiring.PluginPreinstalled, Path: library04},
	}
}

func TestRun(t *testing.T) {
	cert, ca := certificate(t, "localhost")
	otherCert, _ := certificate(t, "localhost")
	wrongName, wrongNameCA := certificate(t, "elsewhere")
	gives := func() *collector { return &collector{answer: always(goodTicket, nil)} }
	for name, tt := range map[string]struct {
		collector  ticket.TicketsServer
		cert       *tls.Certificate
		ca         string
		files      map[string]string
		change     func(*wiring.Task)
		want       wiring.Verdict // Reason is a part
		wantNode   string         // "": no fragment
		wantLoaded bool
	}{
		"ticket over TLS": {
			collector: gives(), cert: &cert, ca: ca, wantNode: goodTicket, wantLoaded: true,
			want: wiring.Verdict{Wired: true, Ticket: true, Reason: "wired with a ticket"},
		},
		"no load_plugins": {
			collector: gives(), cert: &cert, ca: ca, files: map[string]string{mainFile: jsonPlugin}, wantNode: goodTicket,
			want: wiring.Verdict{Wired: true, Ticket: true, Reason: "wired with a ticket; whether Falco's image has " + library04 + " was not checked"},
		},
		"no token over plaintext": {
			collector: gives(), wantNode: "$${FALCO_K8S_NODE_NAME}", wantLoaded: true,
			want: wiring.Verdict{Wired: true, Reason: "plaintext"},
		},
		"configured and not loaded": {
			collector: gives(), files: map[string]string{mainFile: k8smetaPlugin + "load_plugins: []\n"},
			want: wiring.Verdict{Reason: "configured by /etc/falco/falco.yaml, but load_plugins does not list it"},
		},
		"ticket at the third try": {
			collector: &collector{answer: func(n int32) (string, error) {
				if n < 3 {
					return "", status.Error(codes.Unavailable, "not yet")
				}
				return goodTicket, nil
			}},
			cert: &cert, ca: ca, wantNode: goodTicket, wantLoaded: true,
			want: wiring.Verdict{Wired: true, Ticket: true},
		},
		"no tickets": {
			collector: &ticket.UnimplementedTicketsServer{}, cert: &cert, ca: ca, wantNode: "$${FALCO_K8S_NODE_NAME}", wantLoaded: true,
			want: wiring.Verdict{Wired: true, Reason: "by the pod's address: ask for a ticket: rpc error: code = Unimplemented"},
		},
		"an answer that is none": {
			collector: &collector{answer: always("secret/${X}/mac", nil)}, cert: &cert, ca: ca, wantNode: "$${FALCO_K8S_NODE_NAME}", wantLoaded: true,
			want: wiring.Verdict{Wired: true, Reason: "the collector's answer is none"},
		},
		"another authority": {
			collector: gives(), cert: &otherCert, ca: ca, wantNode: "$${FALCO_K8S_NODE_NAME}", wantLoaded: true,
			want: wiring.Verdict{Wired: true, Reason: "x509"},
		},
		"another name": {
			collector: gives(), cert: &wrongName, ca: wrongNameCA, wantNode: "$${FALCO_K8S_NODE_NAME}", wantLoaded: true,
			want: wiring.Verdict{Wired: true, Reason: "elsewhere"},
		},
		"already configured": {
			collector: gives(), files: map[string]string{mainFile: k8smetaPlugin, wiring.FragmentFile: "stale"},
			want: wiring.Verdict{StoodDown: true, Reason: "already configured by /etc/falco/falco.yaml"},
		},
		"broken configuration": {
			collector: gives(), files: map[string]string{mainFile: "{", wiring.FragmentFile: "stale"},
			want: wiring.Verdict{Reason: "read Falco's configuration: /etc/falco/falco.yaml"},
		},
		"Falco 0.40": {
			collector: gives(), change: func(t *wiring.Task) { t.FalcoVersion = "0.40.0" },
			want: wiring.Verdict{Reason: "0.41 or later is needed"},
		},
		"no library": {
			collector: gives(), files: map[string]string{wiring.FragmentFile: "stale"},
			change: func(t *wiring.Task) {
				t.Plugin = wiring.Plugin{Source: wiring.PluginRegistry, Reference: "127.0.0.1:1/x/y:1", PlainHTTP: true}
			},
			want: wiring.Verdict{Reason: "not wired: get the plugin's library: artifact 127.0.0.1:1/x/y:1"},
		},
		"a task that says nothing": {
			collector: gives(), change: func(t *wiring.Task) { *t = wiring.Task{} },
			want: wiring.Verdict{Reason: "host is empty"},
		},
		"a variable that is none": {
			collector: gives(), change: func(t *wiring.Task) { t.NodeVariable = "A}\"" },
			want: wiring.Verdict{Reason: "not the name of a variable"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			work := task(serve(t, tt.collector, tt.cert))
			files := map[string]string{wiring.TokenFile: "the-token\n"}
			if work.TLS = tt.cert != nil; work.TLS {
				files[wiring.CAFile] = tt.ca
			}
			maps.Copy(files, tt.files)
			if _, ok := files[mainFile]; ok {
				work.Mounts = []string{mainFile}
			}
			o := tree(t, files)
			o.Ticket, o.Library = 2*time.Second, time.Second
			if tt.change != nil {
				tt.change(&work)
			}
			got := Run(t.Context(), work, o)
			if strings.Contains(got.String(), "bWFj") || strings.Contains(got.String(), "secret") || strings.Contains(got.String(), "the-token") {
				t.Errorf("the verdict tells a secret: %s", got)
			}
			if !strings.Contains(got.Reason, tt.want.Reason) {
				t.Errorf("reason is %q, want %q", got.Reason, tt.want.Reason)
			}
			got.Reason = tt.want.Reason
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			want := ""
			if tt.wantNode != "" {
				want = wantFragment(work, tt.wantNode, tt.wantLoaded)
			}
			fragment, err := os.ReadFile(o.path(wiring.FragmentFile))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, string(fragment)); diff != "" {
				t.Error(diff)
			}
			if info, err := os.Stat(o.path(wiring.FragmentFile)); err == nil && info.Mode() != 0o644 {
				t.Errorf("mode is %v", info.Mode())
			}
		})
	}
}

func wantFragment(work wiring.Task, node string, loaded bool) string {
	want := `# Written by Metawire's init container. It holds this pod's ticket, which is a secret.
plugins:
    - name: k8smeta
      library_path: ` + library04 + `
      init_config:
        collectorHostname: localhost
        collectorPort: ` + itoa(work.Port) + `
        nodeName: "` + node + `"
`
	if work.TLS {
		want += "        caPEMBundle: /run/metawire/ca/ca.crt\n"
	}
	if loaded {
		want += "load_plugins:\n    - k8smeta\n"
	}
	return want
}

func itoa(n int) string { return big.NewInt(int64(n)).String() }

// A collector without tickets answers at once, and one that refuses does not
// change its mind: Falco need not wait.
func TestFinalAnswers(t *testing.T) {
	cert, ca := certificate(t, "localhost")
	for code, want := range map[codes.Code]int32{codes.Unimplemented: 1, codes.PermissionDenied: refusals, codes.Unauthenticated: refusals} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			o := tree(t, map[string]string{wiring.TokenFile: "the-token", wiring.CAFile: ca})
			c := &collector{answer: always("", status.Error(code, "no"))}
			work := task(serve(t, c, &cert))
			work.TLS = true
			if v := Run(t.Context(), work, o); !v.Wired || v.Ticket {
				t.Errorf("got %s", v)
			}
			if n := c.calls.Load(); n != want {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// Whatever hangs, the whole ends.
func TestRunIsBounded(t *testing.T) {
	_, ca := certificate(t, "localhost")
	o := tree(t, map[string]string{wiring.TokenFile: "the-token", wiring.CAFile: ca})
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() }) //nolint:errcheck // nothing was written
	o.Total = 200 * time.Millisecond
	began := time.Now()
	work := task(port(t, listener))
	work.TLS = true
	v := Run(t.Context(), work, o)
	if !v.Wired || v.Ticket || time.Since(began) > 5*time.Second {
		t.Errorf("got %s after %v", v, time.Since(began))
	}
}

func TestReasonFits(t *testing.T) {
	long := strings.Repeat("\x00<é\n", 5000)
	v := wiring.Verdict{Reason: shorten(long)}
	if n := len(v.String()); n > 4096 {
		t.Errorf("%d bytes", n)
	}
	if _, err := wiring.ParseVerdict(v.String()); err != nil {
		t.Error(err)
	}
}
