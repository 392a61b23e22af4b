package e2e_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/tests/cluster"
	"github.com/metawire/metawire/tests/falco/image"
)

// collectorHost is what the certificate carries.
const collectorHost = collector + "." + namespace + ".svc"

// bundle returns what the API server verifies the webhook with: the authority of
// all of the release's certificates.
func (w *world) bundle(t *testing.T) (bundle []byte) {
	t.Helper()
	eventually(t, soon, func(ctx context.Context) error {
		c, err := w.api.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, "zz-metawire-webhook", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if bundle = c.Webhooks[0].ClientConfig.CABundle; len(bundle) == 0 {
			return errors.New("nobody has filled the caBundle")
		}
		return nil
	})
	return bundle
}

func (w *world) authority(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(w.bundle(t)) {
		t.Fatal("the caBundle holds no authority")
	}
	return pool
}

// bearer is a token, as gRPC sends it.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// viewer returns a token of the chart's ServiceAccount for people.
func (w *world) viewer(t *testing.T) bearer {
	t.Helper()
	return w.token(t, namespace, "metawire-viewer", wiring.Audience)
}

func (w *world) token(t *testing.T, ns, account, audience string) bearer {
	t.Helper()
	token, err := w.api.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return bearer(token.Status.Token)
}

// otherNode is a node that only the API knows.
const otherNode = "node-2"

// testAuthorization: pods of this cluster's real network ask for what is not
// theirs. Each is refused and counted by its reason, and is served its own node's
// metadata when it asks for that.
func testAuthorization(t *testing.T, w *world) {
	if _, err := w.api.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: otherNode},
		Spec: corev1.NodeSpec{
			PodCIDR: "10.250.2.0/24", PodCIDRs: []string{"10.250.2.0/24"},
			Taints: []corev1.Taint{{Key: "no-such-machine", Effect: corev1.TaintEffectNoSchedule}}, // else each DaemonSet wants a pod there
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.CoreV1().Pods(falcos).Create(t.Context(), &corev1.Pod{ // that there is something to be had
		ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"},
		Spec:       corev1.PodSpec{NodeName: otherNode, Containers: []corev1.Container{{Name: "pause", Image: cluster.PauseImage}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	own := daemon{name: "own-network"}
	s, err := own.state(t.Context(), w.falcoPod(t, own))
	if err != nil {
		t.Fatal(err)
	}
	ticket := s.NodeName
	_, rest, _ := strings.Cut(ticket, "/")
	gone := w.ticketOfAGonePod(t)
	for _, c := range []struct {
		name, nodeName string
		change         func(*corev1.PodTemplateSpec)
		code           codes.Code
		reason         string // of the metric
	}{
		{"another-node-by-name", otherNode, unseen, codes.PermissionDenied, "address_other_node"},
		{"another-pods-ticket", ticket, unseen, codes.PermissionDenied, "ticket_other_pod"},
		{"its-ticket-for-another-node", otherNode + "/" + rest, unseen, codes.PermissionDenied, "ticket_forged"},
		{"forged-ticket", ticket[:len(ticket)-4] + "AAAA", unseen, codes.PermissionDenied, "ticket_forged"},
		{"ticket-of-a-gone-pod", gone, unseen, codes.Aborted, "ticket_pod_unknown"},
		{"not-falco", w.node, func(t *corev1.PodTemplateSpec) {
			unseen(t)
			t.Spec.Containers[0].Name, t.Spec.Containers[0].Image = "client", image.Client
		}, codes.PermissionDenied, "address_no_subscriber"},
	} {
		t.Run(c.name, func(t *testing.T) {
			series := `metawire_stream_refusals_total\{reason="` + c.reason + `"\}`
			before := w.sum(t, "collector", series)
			d := daemon{name: c.name, config: byHand(collectorHost, 45000, c.nodeName, byHandCA), change: c.change}
			pod := w.start(t, d)
			eventually(t, soon, func(ctx context.Context) error {
				s, err := d.state(ctx, pod)
				if err == nil && len(s.Ends) == 0 {
					err = errors.New("it has not been refused yet")
				}
				if err != nil {
					return err
				}
				if s.Ends[0].Code != c.code || s.Events > 0 {
					t.Errorf("its stream ended with %s after %d events, want %s and none", s.Ends[0].Code, s.Events, c.code)
				}
				return nil
			})
			if after := w.sum(t, "collector", series); after <= before {
				t.Errorf("%d refusals for %s before, %d after", before, c.reason, after)
			}
			if out, _ := w.metawire(t, "explain", "pod", pod.Namespace+"/"+pod.Name); !strings.Contains(out, "("+c.reason+")") {
				t.Errorf("explain does not say that it is refused for %s:\n%s", c.reason, out)
			}
			w.remove(t, d)
		})
	}
	t.Run("its own node", func(t *testing.T) {
		d := daemon{name: "own-node", config: byHand(collectorHost, 45000, w.node, byHandCA), change: unseen}
		if s := w.exactly(t, d, w.start(t, d)); len(s.Ends) > 0 {
			t.Errorf("it was refused before its address was known: %s", ended(s))
		}
		w.remove(t, d)
	})
	w.exactly(t, own, w.falcoPod(t, own)) // whose ticket others showed
	t.Run("from outside", func(t *testing.T) { testOutside(t, w, ticket) })
	if err := w.api.CoreV1().Pods(falcos).Delete(t.Context(), "elsewhere", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	if err := w.api.CoreV1().Nodes().Delete(t.Context(), otherNode, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// ticketOfAGonePod returns a ticket that was good.
func (w *world) ticketOfAGonePod(t *testing.T) string {
	t.Helper()
	d := daemon{name: "gone", config: stock}
	s := w.exactly(t, d, w.start(t, d))
	w.remove(t, d)
	return s.NodeName
}

// testOutside: callers that are no pods, on the node's network and through a
// port-forward.
func testOutside(t *testing.T, w *world, ticket string) {
	found, err := installation.Find(t.Context(), w.config, namespace)
	if err != nil {
		t.Fatal(err)
	}
	service := w.service(t)
	direct := func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", service) }
	for name, c := range map[string]struct {
		dial  func(context.Context) (net.Conn, error)
		node  string
		token credentials.PerRPCCredentials
		want  codes.Code
	}{
		"port-forward without a token":    {found.Dial, w.node, nil, codes.PermissionDenied},
		"port-forward with a viewer's":    {found.Dial, w.node, w.viewer(t), codes.OK},
		"a viewer's token, any node":      {direct, otherNode, w.viewer(t), codes.OK},
		"another node by its name":        {direct, otherNode, nil, codes.PermissionDenied},
		"an account that may not":         {direct, w.node, w.token(t, namespace, "default", wiring.Audience), codes.PermissionDenied},
		"a token for the API":             {direct, w.node, w.token(t, namespace, "metawire-viewer", "https://kubernetes.default.svc.cluster.local"), codes.Unauthenticated},
		"a token that is none":            {direct, w.node, bearer("x.y.z"), codes.Unauthenticated},
		"a ticket, from a shared address": {direct, ticket, nil, codes.OK}, // docs/security.md says so
	} {
		t.Run(name, func(t *testing.T) {
			if err := w.watchOnce(t, c.dial, c.node, c.token); status.Code(err) != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	for _, p := range w.mustCollectors(t) {
		log, err := w.log(t.Context(), p, false)
		if err != nil {
			t.Fatal(err)
		}
		metrics, err := get(t.Context(), p, 8080, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		_, mac, _ := strings.Cut(strings.TrimPrefix(ticket, w.node+"/"), "/")
		for _, secret := range []string{"x.y.z", mac} {
			if strings.Contains(metrics+log, secret) {
				t.Errorf("a secret is in the metrics or the log of %s", p.Name)
			}
		}
	}
}

// watchOnce subscribes and returns how the stream ends, nil if an event came.
func (w *world) watchOnce(t *testing.T, dial func(context.Context) (net.Conn, error), node string, token credentials.PerRPCCredentials) error {
	t.Helper()
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(w.authority(t), collectorHost)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
	}
	if token != nil {
		options = append(options, grpc.WithPerRPCCredentials(token))
	}
	conn, err := grpc.NewClient("passthrough:///collector", options...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	limit := soon // a refusal takes 10 s
	if token != nil {
		limit /= 10
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, err := metadata.NewMetadataClient(conn).Watch(ctx, &metadata.Selector{NodeName: node, ResourceKinds: map[string]string{"Pod": "true"}})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	_, err = s.Recv()
	return err
}
