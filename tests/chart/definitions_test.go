package chart_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	sigsyaml "sigs.k8s.io/yaml"
)

// prometheusOperator is the version whose definitions the chart's objects of
// its kinds are checked by.
const prometheusOperator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// foreignKinds are those that the chart renders and Kubernetes does not have, by
// plural.
func foreignKinds() map[string]schema.GroupKind {
	return map[string]schema.GroupKind{
		"issuers":         {Group: "cert-manager.io", Kind: "Issuer"},
		"certificates":    {Group: "cert-manager.io", Kind: "Certificate"},
		"servicemonitors": {Group: "monitoring.coreos.com", Kind: "ServiceMonitor"},
		"podmonitors":     {Group: "monitoring.coreos.com", Kind: "PodMonitor"},
		"prometheusrules": {Group: "monitoring.coreos.com", Kind: "PrometheusRule"},
	}
}

func isForeign(kind schema.GroupKind) bool {
	return slices.Contains(slices.Collect(maps.Values(foreignKinds())), kind)
}

// defineForeign gives the API server their projects' own definitions of the
// foreign kinds, and waits until it serves them.
func defineForeign(t *testing.T, client dynamic.Interface) {
	t.Helper()
	certManager, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{
		"cert-manager.io":       filepath.Join(strings.TrimSpace(string(certManager)), "deploy", "crds"),
		"monitoring.coreos.com": filepath.Join(download(t, prometheusOperator), "example", "prometheus-operator-crd"),
	}
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for plural, kind := range foreignKinds() {
		text, err := os.ReadFile(filepath.Join(dirs[kind.Group], kind.Group+"_"+plural+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		crd := &unstructured.Unstructured{}
		if err := sigsyaml.Unmarshal(text, &crd.Object); err != nil {
			t.Fatal(err)
		}
		if _, err := crds.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		waitEstablished(t, crds, crd.GetName())
	}
}

// discoverForeign returns the kinds of the API server. It blocks until the
// foreign ones are among them, which is later than they are served: for a minute
// at most.
func discoverForeign(t *testing.T, client discovery.DiscoveryInterface) meta.RESTMapper {
	t.Helper()
	var mapper meta.RESTMapper
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		groups, err := restmapper.GetAPIGroupResources(client)
		if err != nil {
			return false, err
		}
		mapper = restmapper.NewDiscoveryRESTMapper(groups)
		for _, kind := range foreignKinds() {
			_, err := mapper.RESTMapping(kind, "v1")
			if meta.IsNoMatchError(err) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("discover %v: %v", foreignKinds(), err)
	}
	return mapper
}

// waitEstablished blocks until the definition is served, for a minute at most.
func waitEstablished(t *testing.T, crds dynamic.ResourceInterface, name string) {
	t.Helper()
	limit := int64(time.Minute / time.Second)
	w, err := crds.Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(), TimeoutSeconds: &limit})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		crd, ok := e.Object.(*unstructured.Unstructured)
		if e.Type == watch.Error || !ok {
			t.Fatalf("watch of definition %s: %v", name, e.Object)
		}
		status, _, err := unstructured.NestedMap(crd.Object, "status")
		if err != nil {
			t.Fatal(err)
		}
		conditions, _ := status["conditions"].([]any) // null at first
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return
			}
		}
	}
	t.Fatalf("definition %s is not served after a minute", name)
}
