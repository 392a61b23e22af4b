package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// answers are what an API server says, by path. Selectors are not looked at: what
// is in a list is what matches.
type answers map[string]any

// serve answers so, with 404 else, and returns a kubeconfig.
func (a answers) serve(t *testing.T) (kubeconfig string) {
	t.Helper()
	return kubeconfigOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer, ok := a[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
				Status:   metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound, Message: r.URL.Path + " is not there",
			}
		}
		if ok && strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList") { // only of empty lists
			answer = metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"}}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	})
}

// kubeconfigOf is one for a handler in the API server's place.
func kubeconfigOf(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	server.Config.SetKeepAlivesEnabled(false) // else client-go's connections outlive the test
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c"}}],
		"clusters": [{"name": "c", "cluster": {"server": "` + server.URL + `"}}]}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// installed is a release without TLS, and without collectors that run.
func installed() answers {
	meta := metav1.ObjectMeta{
		Namespace: "metawire", Name: "metawire-collector",
		Labels: map[string]string{"app.kubernetes.io/instance": "metawire", "app.kubernetes.io/component": "collector"},
	}
	service := corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.0.0.1"}, Ports: []corev1.ServicePort{{Name: "grpc", Port: 45000}}}}
	return answers{
		"/api/v1/services": corev1.ServiceList{Items: []corev1.Service{service}},
		"/api/v1/namespaces/metawire/services/metawire-collector": service,
		"/api/v1/namespaces/metawire/configmaps": corev1.ConfigMapList{Items: []corev1.ConfigMap{
			{Data: map[string]string{"collector.yaml": "stream: {tls: {mode: disabled}}"}},
			{Data: map[string]string{"webhook.yaml": webhookFile}},
		}},
		"/api/v1/namespaces/metawire/pods":                                    corev1.PodList{},
		"/api/v1/namespaces/metawire/secrets":                                 corev1.SecretList{},
		"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations": admissionv1.MutatingWebhookConfigurationList{},
		"/api/v1/namespaces/metawire/serviceaccounts":                         corev1.ServiceAccountList{Items: []corev1.ServiceAccount{{ObjectMeta: metav1.ObjectMeta{Name: "viewer"}}}},
		"/api/v1/namespaces/metawire/serviceaccounts/viewer/token":            authenticationv1.TokenRequest{},
	}
}

const webhookFile = `apiVersion: metawire.dev/v1alpha1
kind: WebhookConfig
address: ":9443"
health: {address: ":8081"}
metrics: {address: ":8080"}
configuration: metawire
tls: {mode: files, certFile: a, keyFile: b, caFile: c}
stream: {host: metawire-collector.metawire.svc, port: 45000, service: {namespace: metawire, name: metawire-collector}}
image: {name: "ghcr.io/metawire/metawire:1"}
plugin: {reference: ghcr.io/x/k8smeta}
`
