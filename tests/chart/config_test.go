package chart_test

import (
	"encoding/json"
	"fmt"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/internal/strict"
	webhookconfig "github.com/metawire/metawire/webhook/config"
)

// checkCollectorConfig: the collector's own loader takes what was rendered, and
// finds in it what the values say, or the collector's default.
func checkCollectorConfig(t *rapid.T, objs []*unstructured.Unstructured, s settings, inventory map[typeKey]bool) {
	ships := map[string]any{"enabled": false}
	if s.inventory && !s.ships.cronJob {
		ships = s.ships.wantConfig(inventory)
	}
	if !s.stream && s.ships.cronJob {
		if _, err := find[corev1.ConfigMap](objs, "ConfigMap", "metawire-collector"); err == nil {
			t.Fatal("collectors are configured that have nothing to do")
		}
		return
	}
	pacing := map[string]any{"burst": config.DefaultPacingBurst, "rate": config.DefaultPacingRate}
	stream := map[string]any{
		"enabled": s.stream,
		"address": fmt.Sprintf(":%d", s.ports[0]),
		"tls":     wantTLS(s, "collector"),
		"pacing":  pacing,
		"maxAge":  config.DefaultMaxAge.String(),

		"authorization": s.authorization,
	}
	if s.burst > 0 {
		pacing["burst"] = s.burst
	}
	if s.rate > 0 {
		pacing["rate"] = s.rate
	}
	if s.maxAge != "" {
		stream["maxAge"] = s.maxAge
	}
	if s.plaintext {
		stream["plaintext"] = map[string]any{"address": fmt.Sprintf(":%d", s.ports[3])}
	}
	if s.stream && s.authorization != "disabled" {
		stream["trustNodeAddresses"] = s.trustNodeAddresses
	}
	if s.stream {
		stream["tickets"] = map[string]any{"secret": map[string]any{"namespace": namespace, "name": "metawire-tickets"}}
	}
	report := map[string]any{"unwiredPods": s.wires()}
	if s.wires() {
		report["namespaceSelector"] = wantNamespaces(s)
	}
	checkFile(t, objs, "metawire-collector", "collector.yaml", config.Decode, map[string]any{
		"apiVersion": config.APIVersion,
		"kind":       config.Kind,
		"clusterID":  s.clusterID,
		"health":     map[string]any{"address": fmt.Sprintf(":%d", s.ports[1])},
		"metrics":    map[string]any{"address": fmt.Sprintf(":%d", s.ports[2])},
		"stream":     stream,
		"report":     report,
		"inventory":  ships,
	})
}

// checkWebhookConfig: the webhook's file says what the values say, and nothing
// else.
func checkWebhookConfig(t *rapid.T, objs []*unstructured.Unstructured, s settings) {
	if !s.wires() {
		if _, err := find[corev1.ConfigMap](objs, "ConfigMap", "metawire-webhook"); err == nil {
			t.Fatal("a webhook is configured that is off")
		}
		return
	}
	image := map[string]any{"name": "ghcr.io/metawire/metawire:0.1.0", "pullPolicy": "IfNotPresent"}
	secrets := s.pullSecrets
	if secrets == nil { // what Metawire's pods need, Falco's do too: it is the same image
		secrets = s.ownPullSecrets
	}
	if secrets != nil {
		image["pullSecrets"] = secrets
	}
	want := map[string]any{
		"apiVersion": "metawire.dev/v1alpha1",
		"kind":       "WebhookConfig",
		"address":    fmt.Sprintf(":%d", s.webhookPorts[0]),
		"health":     map[string]any{"address": fmt.Sprintf(":%d", s.webhookPorts[1])},
		"metrics":    map[string]any{"address": fmt.Sprintf(":%d", s.webhookPorts[2])},
		"tls":        wantTLS(s, "webhook"),
		"stream": map[string]any{
			"host": "metawire-collector.metawire.svc", "port": s.ports[0],
			"service": map[string]any{"namespace": namespace, "name": "metawire-collector"},
		},
		"image":  image,
		"plugin": s.plugin,
	}
	if s.tls != "certManager" {
		want["configuration"] = "zz-metawire-webhook"
	}
	checkFile(t, objs, "metawire-webhook", "webhook.yaml", decodeMap, want)
}

// wantNamespaces is the selector of the namespaces where Falco is wired, and
// reported if it is not.
func wantNamespaces(s settings) map[string]any {
	always := []any{
		map[string]any{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": []any{"kube-system"}},
		map[string]any{"key": "metawire.dev/inject", "operator": "NotIn", "values": []any{"false"}},
	}
	of, _ := s.namespaces["matchExpressions"].([]any)
	want := map[string]any{"matchExpressions": append(always, of...)}
	if l := s.namespaces["matchLabels"]; l != nil {
		want["matchLabels"] = l
	}
	return want
}

// checkNamespaces: the webhook is asked about the namespaces that the collector
// reports of.
func checkNamespaces(t *rapid.T, objs []*unstructured.Unstructured, s settings) {
	if !s.wires() {
		return
	}
	c, err := find[admissionv1.MutatingWebhookConfiguration](objs, "MutatingWebhookConfiguration", "zz-metawire-webhook")
	if err != nil {
		t.Fatal(err)
	}
	want := &metav1.LabelSelector{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(wantNamespaces(s), want, true); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, c.Webhooks[0].NamespaceSelector); d != "" {
		t.Fatalf("namespaces that the webhook is asked about (-values +configuration):\n%s", d)
	}
}

// decodeMap decodes what the webhook's own loader accepts.
func decodeMap(data []byte) (*map[string]any, error) {
	if _, err := webhookconfig.Decode(data); err != nil {
		return nil, err
	}
	into := map[string]any{}
	return &into, strict.Decode(data, &into)
}

func wantTLS(s settings, component string) map[string]any {
	if s.tls == "selfManaged" {
		name := "metawire-" + component
		return map[string]any{
			"mode":     "selfManaged",
			"secret":   map[string]any{"namespace": namespace, "name": "metawire-ca"},
			"dnsNames": []string{name, name + ".metawire", name + ".metawire.svc"},
		}
	}
	return map[string]any{
		"mode": "files", "certFile": "/etc/metawire-tls/tls.crt", "keyFile": "/etc/metawire-tls/tls.key", "caFile": "/etc/metawire-tls/ca.crt",
	}
}

// checkFile compares what a daemon's loader makes of the file in the ConfigMap
// and of the one that is wanted.
func checkFile[T any](t *rapid.T, objs []*unstructured.Unstructured, configMap, file string, decode func([]byte) (*T, error), want map[string]any) {
	cm, err := find[corev1.ConfigMap](objs, "ConfigMap", configMap)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode([]byte(cm.Data[file]))
	if err != nil {
		t.Fatalf("%s is refused by its loader: %v\n%s", file, err, cm.Data[file])
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := decode(text)
	if err != nil {
		t.Fatalf("what is wanted of %s is refused by its loader: %v\n%s", file, err, text)
	}
	if d := cmp.Diff(wanted, got); d != "" {
		t.Fatalf("%s is not what the values say (-values +file):\n%s\n%s", file, d, cm.Data[file])
	}
}
