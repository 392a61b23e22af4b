package e2e_test

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/collector/inventory/receiver"
	"github.com/metawire/metawire/tests/e2e/release"
)

// provided installs the release with certificates of the user's, first without a
// webhook, in which there is nothing to find fault with, and wires a Falco.
func (b *breakages) provided(t *testing.T) {
	t.Helper()
	b.ca, b.caKey = authority(t, nil, nil, "a company", nil)
	b.createSecret(t, "mine", b.leaf(t, nil))
	tls := map[string]any{"source": "provided", "provided": map[string]any{"secretName": "mine"}}
	if _, err := b.helm.Install(t.Context(), b.values(map[string]any{"tls": tls, "webhook": map[string]any{"enabled": false}}), nil, started); err != nil {
		t.Fatal(err)
	}
	b.content(t)
	pods, err := b.api.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if out, code := b.metawire(t, "explain", "pod", namespace+"/"+pods.Items[0].Name); code != 2 || !strings.Contains(out, "the release has no webhook") {
		t.Errorf("explain without a webhook ended with %d:\n%s", code, out)
	}
	b.upgrade(t, map[string]any{"tls": tls})
	b.webhookAnswers(t)
	b.falco = daemon{name: "own", config: stock}
	b.start(t, b.falco)
}

// selfManaged goes over to certificates of the daemons' own, and switches on an
// inventory whose endpoint is down: a first run begins, which takes minutes to
// give up, in which the collectors must not be ended.
func (b *breakages) selfManaged(t *testing.T) {
	t.Helper()
	b.endpoint = newEndpoint(t, b.cluster.HostIP())
	b.upgrade(t, map[string]any{
		"clusterID": "e2e",
		"inventory": map[string]any{
			"enabled": true, "endpoint": b.endpoint.url + "/ingest", "insecure": true, "schedule": "0 0 1 1 *",
			"credentials": map[string]any{"mode": "bearer", "token": inventoryToken},
		},
	})
	b.rolledOut(t, namespace, collector)
	b.webhookAnswers(t)
	state := inventory.State{API: b.api, Namespace: namespace, Lease: "metawire-inventory", Report: "metawire-inventory-report"}
	if err := state.Ask(t.Context(), "down"); err != nil {
		t.Fatal(err)
	}
}

// upgrade is helm upgrade with these values; with nil those of before.
func (b *breakages) upgrade(t *testing.T, values map[string]any) {
	t.Helper()
	if values != nil {
		b.with = b.values(values)
	}
	if _, err := b.helm.Upgrade(t.Context(), b.with, started); err != nil {
		t.Fatal(err)
	}
}

// leaf are a Secret's data: a certificate for both Services, changed.
func (b *breakages) leaf(t *testing.T, change func(*x509.Certificate)) map[string][]byte {
	t.Helper()
	leaf, key := authority(t, b.ca, b.caKey, "metawire", []string{collectorHost, "metawire-webhook." + namespace + ".svc"}, change)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"tls.crt": encoded("CERTIFICATE", leaf.Raw), "tls.key": encoded("PRIVATE KEY", der), "ca.crt": encoded("CERTIFICATE", b.ca.Raw)}
}

func encoded(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// serveLeaf has the webhooks serve another certificate: new pods take it at once,
// where old ones wait for the kubelet.
func (b *breakages) serveLeaf(t *testing.T, change func(*x509.Certificate)) {
	t.Helper()
	secrets := b.api.CoreV1().Secrets(namespace)
	s, err := secrets.Get(t.Context(), "mine", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Data = b.leaf(t, change)
	if _, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.deletePods(t, "webhook")
}

// deletePods deletes the pods of a component, at once.
func (b *breakages) deletePods(t *testing.T, component string) {
	t.Helper()
	grace := int64(0)
	if err := b.api.CoreV1().Pods(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &grace},
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component}); err != nil {
		t.Fatal(err)
	}
}

// gated makes a daemon whose pod waits to be scheduled, and returns the pod's name.
func (b *breakages) gated(t *testing.T, d daemon) (name string) {
	t.Helper()
	b.putConfigMap(t, d.name, "falco.yaml", d.config)
	if _, err := b.api.AppsV1().DaemonSets(falcos).Create(t.Context(), d.object(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, started, func(ctx context.Context) error {
		pods, err := b.pods(ctx, falcos, d.selector())
		if err != nil || len(pods) != 1 {
			return fmt.Errorf("%d pods, %w", len(pods), err)
		}
		name = pods[0].Name
		return nil
	})
	return name
}

// renew has a daemon's pod made anew.
func (b *breakages) renew(t *testing.T, d daemon) {
	t.Helper()
	if err := b.api.CoreV1().Pods(falcos).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: d.selector()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, started, func(ctx context.Context) error {
		pods, err := b.pods(ctx, falcos, d.selector())
		if err == nil && (len(pods) != 1 || pods[0].DeletionTimestamp != nil) {
			err = fmt.Errorf("%d pods", len(pods))
		}
		return err
	})
	b.falcoPod(t, d)
}

// template changes the pod template of a Deployment, and returns what puts back
// the one of before.
func (b *breakages) template(t *testing.T, path, patch string) (mend func()) {
	t.Helper()
	mend = b.replace(t, path, "/spec/template", "")
	b.patch(t, path, types.StrategicMergePatchType, `{"spec": {"template": `+patch+`}}`)
	return mend
}

// replace puts another value at a JSON pointer of an object, none if it is empty,
// and returns what puts the one of before back.
func (b *breakages) replace(t *testing.T, path, pointer, value string) (mend func()) {
	t.Helper()
	raw, err := b.api.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var was any
	if err := json.Unmarshal(raw, &was); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Split(pointer, "/")[1:] {
		switch o := was.(type) {
		case map[string]any:
			was = o[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil {
				t.Fatal(err)
			}
			was = o[i]
		}
	}
	put := func(value string) {
		b.patch(t, path, types.JSONPatchType, fmt.Sprintf(`[{"op": "replace", "path": %q, "value": %s}]`, pointer, value))
	}
	if value != "" {
		put(value)
	}
	return func() { put(inJSON(t, was)) }
}

// eventuallyMayNot waits until the API server has taken in that a daemon lost a right.
func (b *breakages) eventuallyMayNot(t *testing.T, account string, right authorizationv1.ResourceAttributes) {
	t.Helper()
	eventually(t, soon, func(ctx context.Context) error {
		r, err := b.api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:" + namespace + ":" + account, ResourceAttributes: &right},
		}, metav1.CreateOptions{})
		if err == nil && r.Status.Allowed {
			err = errors.New("it still may")
		}
		return err
	})
}

// endpoint is an inventory's, at an address where nobody listens at first.
type endpoint struct {
	url     string
	listen  func()
	up      atomic.Bool // somebody listens
	refuses atomic.Bool
}

func newEndpoint(t *testing.T, host string) *endpoint {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	e := &endpoint{url: "http://" + addr}
	handler := receiver.New(receiver.Options{Token: inventoryToken, Fault: func(*http.Request) receiver.Fault {
		if e.refuses.Load() {
			return receiver.Fault{Kind: receiver.Unauthorized}
		}
		return receiver.Fault{}
	}})
	e.listen = func() {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		e.up.Store(true)
		s := &http.Server{Handler: handler, ReadHeaderTimeout: soon}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		t.Cleanup(func() {
			_ = s.Close()
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
	return e
}

// retagged writes an archive with the project's image under another tag.
func retagged(t *testing.T, tag string) string {
	t.Helper()
	archive := cmp.Or(os.Getenv("METAWIRE_IMAGE"), "../../bin/image/metawire.tar")
	image, err := release.ImageIn(archive)
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "retagged.tar"))
	if err != nil {
		t.Fatal(err)
	}
	r, w := tar.NewReader(in), tar.NewWriter(out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var content io.Reader = r
		if h.Name == "manifest.json" {
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			other := strings.ReplaceAll(string(text), image.String(), image.Repository+":"+tag)
			h.Size, content = int64(len(other)), strings.NewReader(other)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// container is a patch of a pod template that gives a container another image.
func container(name, image string) string {
	return fmt.Sprintf(`{"spec": {"containers": [{"name": %q, "image": %q}]}}`, name, image)
}

// neverScheduled has a daemon's pods wait to be scheduled.
func neverScheduled(t *corev1.PodTemplateSpec) {
	t.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "metawire.dev/test"}}
}
