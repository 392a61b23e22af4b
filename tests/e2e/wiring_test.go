package e2e_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/tests/cluster"
)

// collectorHost is what the certificate carries.
const collectorHost = collector + "." + namespace + ".svc"

// falcos is a namespace of pods that know nothing of Metawire.
const falcos = "falco"

// authority returns what the release's certificates are signed by.
func (w *world) authority(t *testing.T) *x509.CertPool {
	t.Helper()
	s, err := w.api.CoreV1().Secrets(namespace).Get(t.Context(), "metawire-ca", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.Data["ca.crt"]) {
		t.Fatal("Secret metawire-ca holds no authority")
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

// falcoPod is a pod as Falco's chart makes it, but that its image holds no
// Falco: what is looked at ends before Falco starts.
func falcoPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: falcos},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "falco", Image: cluster.PauseImage, Args: []string{"/usr/bin/falco"},
			Env: []corev1.EnvVar{{Name: "FALCO_K8S_NODE_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}},
		}}},
	}
	if change != nil {
		change(p)
	}
	return p
}

// testWiring: pods of a namespace that knows nothing of Metawire are admitted
// through the webhook, and their init container gets a ticket over TLS.
func testWiring(t *testing.T, w *world) {
	pods := w.api.CoreV1().Pods(falcos)
	if _, err := w.api.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: falcos}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, soon, func(ctx context.Context) error { // which makes a namespace usable
		_, err := w.api.CoreV1().ServiceAccounts(falcos).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	for name, change := range map[string]func(*corev1.Pod){
		"own-network":  nil,
		"host-network": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := pods.Create(t.Context(), falcoPod(name, change), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			var verdict wiring.Verdict
			eventually(t, started, func(ctx context.Context) (err error) {
				verdict, err = w.verdict(ctx, falcos, name)
				return err
			})
			if !verdict.Wired || !verdict.Ticket {
				t.Errorf("the init container says %+v", verdict)
			}
		})
	}
	plain := falcoPod("not-falco", func(p *corev1.Pod) { p.Spec.Containers[0].Name = "web" })
	made, err := pods.Create(t.Context(), plain, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, looked := made.Annotations[wiring.StatusAnnotation]; looked {
		t.Error("a pod that is not Falco reached the webhook")
	}
	if err := w.api.CoreV1().Namespaces().Delete(t.Context(), falcos, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, started, func(ctx context.Context) error {
		_, err := w.api.CoreV1().Namespaces().Get(ctx, falcos, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("the namespace is still there"), err)
	})
}

// verdict returns what the init container of a pod says.
func (w *world) verdict(ctx context.Context, ns, name string) (wiring.Verdict, error) {
	p, err := w.api.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return wiring.Verdict{}, err
	}
	for _, c := range p.Status.InitContainerStatuses {
		if c.Name == wiring.InitContainer && c.State.Terminated != nil {
			return wiring.ParseVerdict(c.State.Terminated.Message)
		}
	}
	return wiring.Verdict{}, fmt.Errorf("the init container has not ended: %+v, annotations %v", p.Status.InitContainerStatuses, p.Annotations)
}

// testAuthorization: who shows nothing, a forged ticket or a token for somebody
// else is refused, and counted.
func testAuthorization(t *testing.T, w *world) {
	ca := w.authority(t)
	for name, c := range map[string]struct {
		node  string
		token credentials.PerRPCCredentials
		want  []codes.Code
	}{
		// The tests' address is one that the node's host network has too; that
		// it proves another node is refused.
		"another node by its name": {"node-2", nil, []codes.Code{codes.PermissionDenied, codes.Aborted}},
		"a forged ticket":          {w.node + "/3f1c0f6e-5f0f-4b0f-8f52-7a8f6d1f6c11/AAAA", nil, []codes.Code{codes.PermissionDenied}},
		"an account that may not":  {w.node, w.token(t, namespace, "default", wiring.Audience), []codes.Code{codes.PermissionDenied}},
		"a token for the API":      {w.node, w.token(t, namespace, "metawire-viewer", "https://kubernetes.default.svc.cluster.local"), []codes.Code{codes.Unauthenticated}},
		"a token that is none":     {w.node, bearer("x.y.z"), []codes.Code{codes.Unauthenticated}},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.watchOnce(t, ca, c.node, c.token)
			for _, want := range c.want {
				if status.Code(err) == want {
					return
				}
			}
			t.Errorf("got %v, want one of %v", err, c.want)
		})
	}
	counted := 0
	for _, p := range w.mustCollectors(t) {
		metrics, err := get(t.Context(), p, 8080, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		counted += len(regexp.MustCompile(`(?m)^metawire_stream_refusals_total\{.*\} [1-9]`).FindAllString(metrics, -1))
		if strings.Contains(metrics, "x.y.z") {
			t.Error("a token is in the metrics")
		}
	}
	if counted == 0 {
		t.Error("no refusal is counted")
	}
}

// watchOnce subscribes and returns how the stream ends; it is no error to
// receive something.
func (w *world) watchOnce(t *testing.T, ca *x509.CertPool, node string, token credentials.PerRPCCredentials) error {
	t.Helper()
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(ca, collectorHost))}
	if token != nil {
		options = append(options, grpc.WithPerRPCCredentials(token))
	}
	conn, err := grpc.NewClient(w.service(t), options...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	s, err := metadata.NewMetadataClient(conn).Watch(ctx, &metadata.Selector{NodeName: node, ResourceKinds: map[string]string{"Pod": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	return err
}
