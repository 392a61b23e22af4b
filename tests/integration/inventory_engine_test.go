package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector/inventory"
)

// shelf is a contract that keeps what it is given.
type shelf struct {
	run     inventory.Run
	objects map[string]string // JSON by UID
	twice   []string
	gone    []inventory.Identity
	onAdd   func(n int)

	onObject func(inventory.Object)
}

func (s *shelf) Begin(_ context.Context, run inventory.Run) error {
	s.run, s.objects = run, map[string]string{}
	return nil
}

func (s *shelf) Add(_ context.Context, o inventory.Object) error {
	if s.onAdd != nil {
		s.onAdd(len(s.objects))
	}
	if s.onObject != nil {
		s.onObject(o)
	}
	if _, there := s.objects[o.UID]; there {
		s.twice = append(s.twice, o.Kind+" "+o.Name)
	}
	s.objects[o.UID] = string(o.JSON)
	return nil
}

func (s *shelf) Delete(_ context.Context, gone inventory.Identity) error {
	s.gone = append(s.gone, gone)
	return nil
}

func (s *shelf) End(_ context.Context, r *inventory.Report) error {
	r.Sent = inventory.Sent{Objects: len(s.objects)}
	return nil
}

// inventoryRun makes a run with small pages.
func inventoryRun(t *testing.T, api *rest.Config, c inventory.Contract, o inventory.Options) *inventory.Report {
	t.Helper()
	o.API, o.ClusterID, o.Limit = api, "test", 2
	i, err := inventory.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return i.Run(t.Context(), c, nil, nil)
}

// outcomes of a report, by the types' names.
func outcomes(r *inventory.Report) map[string]inventory.Outcome {
	all := map[string]inventory.Outcome{}
	for _, tr := range r.Types {
		all[tr.Name] = tr.Outcome
	}
	return all
}

const inventoryCanary = "hunter2-canary-b1946ac9"

// TestInventoryEngine: every object of the configured types arrives once, page by
// page, whole but for credentials, and types that are not there are named.
func TestInventoryEngine(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	for n := range 7 {
		create(t, &corev1.ConfigMap{ObjectMeta: metadataOf(ns, fmt.Sprintf("config-%d", n)), Data: map[string]string{"password": inventoryCanary, "plain": "stays"}})
	}
	pod := newPod(ns, "pod", ns+"-a")
	pod.Annotations = map[string]string{"api-token": inventoryCanary}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: inventoryCanary}}
	pod.Spec.Containers[0].Args = []string{"--password", inventoryCanary}
	create(t, pod, &corev1.Secret{ObjectMeta: metadataOf(ns, "secret"), StringData: map[string]string{"a": inventoryCanary}})
	s := &shelf{}
	r := inventoryRun(t, apiREST, s, inventory.Options{
		Types:     []string{"configmaps", "pods", "secrets", "namespaces", "nosuch.example.com", "nothing"},
		Redaction: inventory.NewRedactor([]byte(strings.Repeat("k", 32))),
	})
	if r.Result != inventory.Complete || r.Error != "" || len(s.twice) > 0 {
		t.Errorf("result %s, error %q, twice %v", r.Result, r.Error, s.twice)
	}
	want := map[string]inventory.Outcome{
		"configmaps": inventory.OK, "pods": inventory.OK, "secrets": inventory.OK, "namespaces": inventory.OK,
		"nosuch.example.com": inventory.Absent, "nothing": inventory.Absent,
	}
	for name, outcome := range outcomes(r) {
		if want[name] != outcome {
			t.Errorf("type %s is %s, want %s", name, outcome, want[name])
		}
	}
	found := 0
	for _, text := range s.objects {
		if strings.Contains(text, inventoryCanary) {
			t.Errorf("a credential is in %s", text)
		}
		var o unstructured.Unstructured
		if err := json.Unmarshal([]byte(text), &o.Object); err != nil {
			t.Fatal(err)
		}
		if o.GetKind() == "" || o.GetAPIVersion() == "" || o.GetManagedFields() != nil {
			t.Errorf("kind %q, apiVersion %q, managed fields %v", o.GetKind(), o.GetAPIVersion(), o.GetManagedFields())
		}
		if o.GetNamespace() != ns {
			continue
		}
		if found++; o.GetKind() == "ConfigMap" && !strings.Contains(text, `"plain":"stays"`) {
			t.Errorf("too much is taken out of %s", text)
		}
	}
	if found != 9 {
		t.Errorf("%d objects of the namespace arrived, want 9", found)
	}
	if s.run.ClusterUID == "" {
		t.Error("the run does not tell the cluster")
	}
}

// TestInventoryForbidden: a type that may not be listed is named, and the others
// arrive.
func TestInventoryForbidden(t *testing.T) {
	t.Parallel()
	api := rest.AnonymousClientConfig(apiREST)
	api.BearerToken = newIdentity(t).token
	s := &shelf{}
	r := inventoryRun(t, api, s, inventory.Options{Types: []string{"pods", "configmaps"}})
	got := outcomes(r)
	if got["pods"] != inventory.OK || got["configmaps"] != inventory.Forbidden || r.Result != inventory.Partial {
		t.Errorf("outcomes %v, result %s", got, r.Result)
	}
}

// TestInventoryCustomResources: a type that appears is collected at the next run;
// one whose server does not answer is named; neither stops another.
func TestInventoryCustomResources(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	group := ns + ".example.com"
	options := inventory.Options{Types: []string{"namespaces", "gadgets.broken." + group}, CustomResources: true}
	if got := outcomes(inventoryRun(t, apiREST, &shelf{}, options)); got["namespaces"] != inventory.OK {
		t.Errorf("outcomes %v", got)
	}
	client, err := dynamic.NewForConfig(apiREST)
	if err != nil {
		t.Fatal(err)
	}
	define(t, client, group)
	widgets := client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: "widgets"})
	eventually(t, func() error {
		_, err := widgets.Namespace(ns).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": group + "/v1", "kind": "Widget", "metadata": map[string]any{"name": "w"}, "spec": map[string]any{"n": int64(1)},
		}}, metav1.CreateOptions{})
		return err
	})
	breakGroup(t, client, "broken."+group)
	eventually(t, func() error {
		s := &shelf{}
		got := outcomes(inventoryRun(t, apiREST, s, options))
		if got["widgets."+group] != inventory.OK || got["namespaces"] != inventory.OK || got["gadgets.broken."+group] != inventory.Failed {
			return fmt.Errorf("outcomes %v", got)
		}
		for _, o := range s.objects {
			if strings.Contains(o, `"kind":"Widget"`) {
				return nil
			}
		}
		return fmt.Errorf("no widget among %d objects", len(s.objects))
	})
}

// define makes a CustomResourceDefinition for widgets of a group.
func define(t *testing.T, client dynamic.Interface, group string) {
	t.Helper()
	definition := map[string]any{
		"apiVersion": apiextensionsv1.SchemeGroupVersion.String(), "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "widgets." + group},
		"spec": map[string]any{
			"group": group, "scope": "Namespaced",
			"names": map[string]any{"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	}
	resource := client.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	if _, err := resource.Create(t.Context(), &unstructured.Unstructured{Object: definition}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resource.Delete(context.Background(), "widgets."+group, metav1.DeleteOptions{}) })
}

// breakGroup registers an API group that no server serves.
func breakGroup(t *testing.T, client dynamic.Interface, group string) {
	t.Helper()
	resource := client.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	name := "v1." + group
	if _, err := resource.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"group": group, "version": "v1", "groupPriorityMinimum": int64(100), "versionPriority": int64(10), "insecureSkipTLSVerify": true,
			"service": map[string]any{"namespace": "default", "name": "no-such-service"},
		},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resource.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}
