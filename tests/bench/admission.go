package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/metawire/metawire/webhook"
	"github.com/metawire/metawire/webhook/config"
)

// webhookFile is the configuration of a webhook in this process. Nobody keeps a
// caBundle: the bench itself is the one that calls.
const webhookFile = `
apiVersion: metawire.dev/v1alpha1
kind: WebhookConfig
address: %q
health: {address: "127.0.0.1:0"}
metrics: {address: %q}
tls: {mode: selfManaged, secret: {namespace: default, name: bench-ca}, dnsNames: [localhost]}
stream: {host: collector.default.svc, port: 45000, service: {namespace: default, name: bench-collector}}
image: {name: metawire}
plugin: {reference: ghcr.io/falcosecurity/plugins/plugin/k8smeta}
`

// admission measures how long the webhook takes for a pod, from the request over
// TLS to the answer, at --admissions a second. The time that a request waits
// because the bench is late counts too.
func (b *bench) admission(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bench-ca"}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "bench-collector"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 45000}}}}
	core := b.stage.client.CoreV1()
	if _, err := core.Secrets(metav1.NamespaceDefault).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := core.Services(metav1.NamespaceDefault).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	addresses, err := freeAddresses(2)
	if err != nil {
		return err
	}
	address := addresses[0]
	cfg, err := config.Decode(fmt.Appendf(nil, webhookFile, address, addresses[1]))
	if err != nil {
		return err
	}
	w, err := webhook.New(cfg, b.stage.client, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- w.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-served)
	}()
	client, err := b.admissionClient(ctx, address)
	if err != nil {
		return err
	}
	times, err := admit(ctx, client, "https://"+address+"/mutate", b.admissions, b.load)
	if err != nil {
		return err
	}
	inside, err := handled(ctx, cfg.Metrics.Address, 0.99)
	if err != nil {
		return err
	}
	b.report.judge(goalAdmission, fmt.Sprintf("at most %.2g ms", inside*1e3), fmt.Sprintf("%d pods, %v/s; with HTTP and TLS p50 %s, p99 %s, max %s",
		len(times), b.admissions, ms(times.quantile(0.5)), ms(times.quantile(0.99)), ms(times.quantile(1))), inside*1e3)
	return nil
}

// handled returns within how many seconds the webhook answered that part of the
// pods, by its own histogram: the bound of a bucket.
func handled(ctx context.Context, metrics string, part float64) (float64, error) {
	c := &collector{metrics: metrics}
	s, err := c.scrape(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range s["metawire_webhook_duration_seconds"].GetMetric() {
		h := m.GetHistogram()
		for _, bucket := range h.GetBucket() {
			if float64(bucket.GetCumulativeCount()) >= part*float64(h.GetSampleCount()) {
				return bucket.GetUpperBound(), nil
			}
		}
	}
	return 0, errors.New("the webhook does not tell how long it took")
}

// admissionClient waits until the webhook wires a Falco, and returns a client
// that trusts it.
func (b *bench) admissionClient(ctx context.Context, address string) (*http.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		s, err := b.stage.client.CoreV1().Secrets(metav1.NamespaceDefault).Get(ctx, "bench-ca", metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if pool.AppendCertsFromPEM(s.Data["ca.crt"]) {
			client := &http.Client{Transport: &http.Transport{
				TLSClientConfig:     &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12},
				MaxIdleConnsPerHost: 16, ForceAttemptHTTP2: true, // as the API server calls
			}}
			if err = review(ctx, client, "https://"+address+"/mutate", falcoReview()); err == nil {
				return client, nil
			}
		}
		if err := pause(ctx, pollInterval); err != nil {
			return nil, fmt.Errorf("the webhook does not answer: %w", err)
		}
	}
}

// admit sends reviews at a pace, whether or not earlier ones were answered.
func admit(ctx context.Context, client *http.Client, url string, perSecond float64, d time.Duration) (latencies, error) {
	n := max(int(perSecond*d.Seconds()), 1)
	times, errs, pod := make(latencies, n), make([]error, n), falcoReview()
	began := time.Now()
	var all sync.WaitGroup
	for i := range n {
		due := began.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
		if err := pause(ctx, time.Until(due)); err != nil {
			return nil, err
		}
		all.Go(func() {
			errs[i] = review(ctx, client, url, pod)
			times[i] = time.Since(due)
		})
	}
	all.Wait()
	slices.Sort(times)
	return times, errors.Join(errs...)
}

// review has one pod admitted, which must come back patched.
func review(ctx context.Context, client *http.Client, url string, pod []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(pod))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !bytes.Contains(body, []byte(`"patch":`)) {
		return fmt.Errorf("%s: the pod is not wired: %.200s", resp.Status, body)
	}
	return nil
}

// falcoReview is what the API server asks about a pod as Falco's chart makes it.
func falcoReview() []byte {
	mounts := []corev1.VolumeMount{
		{Name: "root-falco-fs", MountPath: "/root/.falco"}, {Name: "proc-fs", MountPath: "/host/proc"},
		{Name: "etc-falco", MountPath: "/etc/falco"}, {Name: "falco-yaml", MountPath: "/etc/falco/falco.yaml", SubPath: "falco.yaml"},
		{Name: "plugins-install-dir", MountPath: "/usr/share/falco/plugins"},
	}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: "falco-", Namespace: "falco", Labels: map[string]string{"app.kubernetes.io/name": "falco"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "falco", Image: "docker.io/falcosecurity/falco:0.43.1", Args: []string{"/usr/bin/falco"}, VolumeMounts: mounts,
			Env: []corev1.EnvVar{{Name: "FALCO_K8S_NODE_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}},
		}}},
	}
	for _, m := range mounts {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: m.Name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	raw, _ := json.Marshal(pod) // made here: there is no error
	body, _ := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "bench", Namespace: "falco", Operation: admissionv1.Create,
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"}, Object: runtime.RawExtension{Raw: raw},
		},
	})
	return body
}
