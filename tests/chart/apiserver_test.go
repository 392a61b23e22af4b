package chart_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	helmchart "helm.sh/helm/v3/pkg/chart"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/tests/cluster"
)

// TestAPIServer: a real API server, in a namespace that admits restricted pods
// only, takes every object of every rendering in a strict dry run, and every
// pod that a Deployment or a CronJob would make.
func TestAPIServer(t *testing.T) {
	api := startAPIServer(t)
	for name, r := range renderAll(t) {
		t.Run(name, func(t *testing.T) {
			for _, o := range r.objects {
				if err := api.dryRun(t.Context(), o); err != nil {
					t.Error(err)
				}
				pod, err := podOf(o)
				if err != nil {
					t.Fatal(err)
				}
				if pod == nil {
					continue
				}
				if err := api.dryRun(t.Context(), pod); err != nil {
					t.Errorf("pod of %s %s: %v", o.GetKind(), o.GetName(), err)
				}
			}
		})
	}
	t.Run("refuses", func(t *testing.T) { testDryRunRefuses(t, api) })
	t.Run("resource types", func(t *testing.T) { testServedTypes(t, api) })
}

// testDryRunRefuses: the dry run is a check.
func testDryRunRefuses(t *testing.T, api *apiServer) {
	object := func(text string) *unstructured.Unstructured {
		_, objs := mustRender(t, &helmchart.Chart{
			Metadata:  &helmchart.Metadata{Name: "x", APIVersion: "v2", Version: "0.1.0"},
			Templates: []*helmchart.File{{Name: "templates/x.yaml", Data: []byte(text)}},
		}, "")
		return objs[0]
	}
	for _, tc := range []struct{ name, object, want string }{
		{"an unknown field", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: metawire}, dat: {}}", `unknown field "dat"`},
		{"an invalid value", "{apiVersion: v1, kind: Service, metadata: {name: x, namespace: metawire}, spec: {ports: [{port: 70000}]}}", "spec.ports[0].port"},
		{"a pod that is not restricted", "{apiVersion: v1, kind: Pod, metadata: {name: x, namespace: metawire}, spec: {containers: [{name: a, image: b}]}}", `violates PodSecurity "restricted:latest"`},
	} {
		if err := api.dryRun(t.Context(), object(tc.object)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want an error with %q, got: %v", tc.name, tc.want, err)
		}
	}
}

// testServedTypes: group, resource and kind of the table are those of the API
// server, for every type that it serves; only types of other projects and of
// other versions may be missing.
func testServedTypes(t *testing.T, api *apiServer) {
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	_, lists, err := api.discovery.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		group, _, _ := strings.Cut(list.GroupVersion, "/")
		if group == "v1" {
			group = ""
		}
		for _, r := range list.APIResources {
			kinds[charts.ResourceType{Group: group, Resource: r.Name}.Name()] = r.Kind
		}
	}
	for _, rt := range types {
		kind, served := kinds[rt.Name()]
		if !served && rt.Group != "argoproj.io" {
			t.Errorf("%s is not served", rt.Name())
		}
		if served && kind != rt.Kind {
			t.Errorf("%s is of kind %s, the table says %s", rt.Name(), kind, rt.Kind)
		}
	}
}

// podOf returns the pod that a Deployment or a CronJob makes, nil for other
// objects.
func podOf(o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	path := map[string][]string{
		"Deployment": {"spec", "template"},
		"CronJob":    {"spec", "jobTemplate", "spec", "template"},
	}[o.GetKind()]
	if path == nil {
		return nil, nil
	}
	template, _, err := unstructured.NestedMap(o.Object, path...)
	if err != nil {
		return nil, err
	}
	pod := &unstructured.Unstructured{Object: template}
	pod.SetAPIVersion("v1")
	pod.SetKind("Pod")
	pod.SetName("made-from-template")
	pod.SetNamespace(o.GetNamespace())
	return pod, nil
}

type apiServer struct {
	discovery discovery.DiscoveryInterface
	dynamic   dynamic.Interface
	mapper    meta.RESTMapper
}

// startControlPlane starts a Kubernetes without nodes; it ends with the test.
func startControlPlane(t *testing.T, controllers bool) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{Size: cluster.ControlPlane, Controllers: controllers, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// startAPIServer starts an API server that holds the namespaces of the release, the
// definitions of foreign kinds and nothing else; it ends with the test.
func startAPIServer(t *testing.T) *apiServer {
	t.Helper()
	c := startControlPlane(t, false)
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	cfg.WarningHandlerWithContext = warnings{t}
	clients, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{namespace, monitoring} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}}
		if _, err := clients.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defineForeign(t, dyn)
	return &apiServer{clients.Discovery(), dyn, discoverForeign(t, clients.Discovery())}
}

// warnings fails the test for what the API server warns of: deprecated fields
// and versions.
type warnings struct{ t *testing.T }

func (w warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.t.Errorf("the API server warns: %s", text)
}

// dryRun asks the API server whether it would create the object as it is.
func (a *apiServer) dryRun(ctx context.Context, o *unstructured.Unstructured) error {
	gvk := o.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return fmt.Errorf("%s %s: %w", gvk.Kind, o.GetName(), err)
	}
	var client dynamic.ResourceInterface = a.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		client = a.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	_, err = client.Create(ctx, o, metav1.CreateOptions{
		DryRun:          []string{metav1.DryRunAll},
		FieldValidation: metav1.FieldValidationStrict,
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", gvk.Kind, o.GetName(), err)
	}
	return nil
}
