package rotation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector"
	collectorconfig "github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/stream"
	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/webhook"
	webhookconfig "github.com/metawire/metawire/webhook/config"
)

const (
	secretName  = "ca"
	serviceName = "collector"
	replicas    = 2
	webhookHost = "localhost" // where the API server finds them
)

const collectorFile = `
apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: %q}
metrics: {address: "127.0.0.1:0"}
stream:
  enabled: true
  address: %q
  tls: {mode: selfManaged, secret: {namespace: %[3]s, name: %[4]s}, dnsNames: [%[5]s]}
  authorization: disabled
`

const webhookFile = `
apiVersion: metawire.dev/v1alpha1
kind: WebhookConfig
health: {address: %q}
metrics: {address: "127.0.0.1:0"}
address: %q
configuration: %[3]s
tls: {mode: selfManaged, secret: {namespace: %[3]s, name: %[4]s}, dnsNames: [%[6]s]}
stream: {host: %[5]s, port: 45000, service: {namespace: %[3]s, name: %[7]s}}
image: {name: metawire}
plugin: {reference: ghcr.io/falcosecurity/plugins/plugin/k8smeta}
`

// prepare makes the objects that the chart renders.
func (r *run) prepare(ctx context.Context) error {
	ns, err := r.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "rotation-"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	r.namespace = ns.Name
	r.host = serviceName + "." + r.namespace + ".svc"
	if r.relay, err = newRelay(ctx); err != nil {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName}}
	if _, err := r.api.CoreV1().Secrets(r.namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: serviceName}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 45000}}}}
	if _, err := r.api.CoreV1().Services(r.namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	ignore, none, url, timeout := admissionv1.Ignore, admissionv1.SideEffectClassNone, "https://"+net.JoinHostPort(webhookHost, r.relay.port())+"/mutate", int32(10)
	_, err = r.api.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: r.namespace},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.metawire.dev", ClientConfig: admissionv1.WebhookClientConfig{URL: &url}, FailurePolicy: &ignore, SideEffects: &none,
			TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: r.namespace}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}, metav1.CreateOptions{})
	return err
}

// remove removes the objects, without their namespace if no controller does.
func (r *run) remove(ctx context.Context) error {
	if r.relay != nil {
		r.relay.close()
	}
	if r.namespace == "" {
		return nil
	}
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	err := errors.Join(
		r.api.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, r.namespace, metav1.DeleteOptions{}),
		r.api.CoreV1().Pods(r.namespace).DeleteCollection(ctx, now, metav1.ListOptions{}),
		r.api.CoreV1().Services(r.namespace).Delete(ctx, serviceName, metav1.DeleteOptions{}),
		r.api.CoreV1().Secrets(r.namespace).Delete(ctx, secretName, metav1.DeleteOptions{}),
		r.api.CoreV1().Namespaces().Delete(ctx, r.namespace, metav1.DeleteOptions{}),
	)
	if apierrors.IsNotFound(err) {
		return nil // it never came so far
	}
	return err
}

// start starts the daemons in the group, and waits until they are ready.
func (r *run) start(ctx context.Context, g *errgroup.Group, api *rest.Config) error {
	var healths []string
	for i := range 2 * replicas {
		d, health := &daemon{}, ""
		var err error
		if d.address, err = freeAddress(ctx); err != nil {
			return err
		}
		if health, err = freeAddress(ctx); err != nil {
			return err
		}
		healths = append(healths, health)
		values := []any{health, d.address, r.namespace, secretName, r.host, webhookHost, serviceName}
		begin := r.collector
		if d.name = fmt.Sprintf("collector %d", i); i >= replicas {
			d.name, begin = fmt.Sprintf("webhook %d", i-replicas), r.webhook
		}
		serve, err := begin(d, api, values)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		g.Go(func() error {
			if err := serve(ctx); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			return nil
		})
	}
	for _, d := range r.webhooks {
		r.relay.add(d.address)
	}
	return r.until(ctx, "the daemons are ready", func(ctx context.Context) error {
		for _, health := range healths {
			if err := ready(ctx, health); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *run) collector(d *daemon, api *rest.Config, values []any) (func(context.Context) error, error) {
	cfg, err := collectorconfig.Decode(fmt.Appendf(nil, collectorFile, values[:5]...))
	if err != nil {
		return nil, err
	}
	r.shorten(&cfg.Stream.TLS)
	c, err := collector.New(cfg, api, r.Log.With("daemon", d.name), collector.Options{
		Stream: stream.Options{Linger: time.Millisecond, Stop: time.Second},
	})
	if err != nil {
		return nil, err
	}
	r.collectors = append(r.collectors, d)
	return c.Run, nil
}

func (r *run) webhook(d *daemon, _ *rest.Config, values []any) (func(context.Context) error, error) {
	cfg, err := webhookconfig.Decode(fmt.Appendf(nil, webhookFile, values...))
	if err != nil {
		return nil, err
	}
	r.shorten(&cfg.TLS)
	w, err := webhook.New(cfg, r.api, r.Log.With("daemon", d.name))
	if err != nil {
		return nil, err
	}
	r.webhooks = append(r.webhooks, d)
	return w.Run, nil
}

func (r *run) shorten(s *certs.Settings) { s.Overlap, s.LeafDuration = r.Overlap, r.LeafDuration }

// daemon is a server whose certificate changes.
type daemon struct {
	name, address string

	mu   sync.Mutex
	seen map[string]struct{} // serial numbers
}

// connect connects as a client that trusts the bundle and expects the name.
func (d *daemon) connect(ctx context.Context, name string, bundle []byte) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: name, NextProtos: []string{"h2"}}}
	c, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", d.name, err)
	}
	if c, ok := c.(*tls.Conn); ok {
		d.mu.Lock()
		if d.seen == nil {
			d.seen = map[string]struct{}{}
		}
		d.seen[c.ConnectionState().PeerCertificates[0].SerialNumber.String()] = struct{}{}
		d.mu.Unlock()
	}
	return c.Close()
}

// certificates is how many different ones clients saw.
func (d *daemon) certificates() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.seen)
}

func ready(ctx context.Context, health string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("not ready: %s", body)
	}
	return err
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// relay spreads connections over targets, as a Service does.
type relay struct {
	listener net.Listener
	all      sync.WaitGroup
	next     atomic.Int64

	mu      sync.Mutex
	targets []string
	open    map[net.Conn]struct{}
}

func newRelay(ctx context.Context) (*relay, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, open: map[net.Conn]struct{}{}}
	r.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.all.Go(func() { r.pass(ctx, c) })
		}
	})
	return r, nil
}

func (r *relay) port() string {
	_, port, _ := net.SplitHostPort(r.listener.Addr().String())
	return port
}

func (r *relay) add(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets = append(r.targets, target)
}

// pass passes on what comes over the connection, to the next target.
func (r *relay) pass(ctx context.Context, c net.Conn) {
	defer c.Close()
	r.mu.Lock()
	targets := r.targets
	r.mu.Unlock()
	if len(targets) == 0 {
		return
	}
	to, err := new(net.Dialer).DialContext(ctx, "tcp", targets[int(r.next.Add(1))%len(targets)])
	if err != nil {
		return
	}
	defer to.Close()
	r.mu.Lock()
	r.open[c], r.open[to] = struct{}{}, struct{}{}
	r.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, to}, {to, c}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = c.Close()
			_ = to.Close()
		})
	}
	both.Wait()
	r.mu.Lock()
	delete(r.open, c)
	delete(r.open, to)
	r.mu.Unlock()
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.all.Wait()
}
