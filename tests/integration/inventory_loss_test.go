package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector/inventory"
)

// answers counts the API server's answers by their status.
type answers struct {
	next http.RoundTripper
	gone atomic.Int32
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusGone {
		a.gone.Add(1)
	}
	return resp, err
}

// TestInventoryEngineExpires: etcd is compacted between two pages, and the API
// server has forgotten: the type is listed anew, and every object arrives once.
func TestInventoryEngineExpires(t *testing.T) {
	ns := newNamespace(t)
	for n := range 7 {
		create(t, &corev1.ConfigMap{ObjectMeta: metadataOf(ns, fmt.Sprintf("config-%d", n))})
	}
	counted := &answers{}
	cfg := rest.CopyConfig(apiREST)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { counted.next = next; return counted })
	compacted := false
	s := &shelf{onAdd: func(n int) {
		if compacted || n < 3 {
			return
		}
		compacted = true
		create(t, &corev1.ConfigMap{ObjectMeta: metadataOf(ns, "late")})
		if _, err := plane.Compact(t.Context()); err != nil {
			t.Error(err)
		}
		if err := plane.Restart(t.Context(), "kube-apiserver"); err != nil {
			t.Error(err)
		}
	}}
	r := inventoryRun(t, cfg, s, inventory.Options{Types: []string{"configmaps", "namespaces"}})
	if got := outcomes(r); r.Result != inventory.Complete || got["configmaps"] != inventory.OK || got["namespaces"] != inventory.OK || len(s.twice) > 0 {
		t.Errorf("result %s, error %q, outcomes %v, twice %v", r.Result, r.Error, got, s.twice)
	}
	if counted.gone.Load() == 0 {
		t.Error("no list expired: this test showed nothing")
	}
	found := 0
	for _, text := range s.objects {
		if strings.Contains(text, `"kind":"ConfigMap"`) && strings.Contains(text, `"namespace":"`+ns+`"`) {
			found++
		}
	}
	if found != 8 {
		t.Errorf("%d ConfigMaps of the namespace arrived, want 8", found)
	}
}

// memory is an index that knows what it was told before; nothing is lost.
type memory struct {
	known map[string]map[string]inventory.Identity // by type and UID
	seen  map[string]bool
}

func (m *memory) Begin(context.Context) (bool, error) {
	m.seen = map[string]bool{}
	return false, nil
}

func (m *memory) Changed(t inventory.Type, id inventory.Identity) bool {
	m.seen[id.UID] = true
	return m.known[t.Name][id.UID].ResourceVersion != id.ResourceVersion
}

func (m *memory) Sent(t inventory.Type, id inventory.Identity) {
	if m.known[t.Name] == nil {
		m.known[t.Name] = map[string]inventory.Identity{}
	}
	m.known[t.Name][id.UID] = id
}

func (m *memory) Gone(t inventory.Type) (gone []inventory.Identity) {
	for uid, id := range m.known[t.Name] {
		if !m.seen[uid] {
			gone = append(gone, id)
			delete(m.known[t.Name], uid)
		}
	}
	return gone
}

func (m *memory) Names() (names []string) {
	for name, objects := range m.known {
		if len(objects) > 0 {
			names = append(names, name)
		}
	}
	return names
}

func (m *memory) End(context.Context, bool) error { return nil }

// TestInventoryEngineDefinitionGoes: a definition is deleted between two pages of
// its objects: that is named, the others arrive, and the objects that did are
// told to be gone in the next run, which does not know the type any more.
func TestInventoryEngineDefinitionGoes(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	group := ns + ".example.com"
	client, err := dynamic.NewForConfig(apiREST)
	if err != nil {
		t.Fatal(err)
	}
	define(t, client, group)
	widgets := client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: "widgets"})
	for n := range 5 {
		eventually(t, func() error {
			_, err := widgets.Namespace(ns).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": group + "/v1", "kind": "Widget", "metadata": map[string]any{"name": fmt.Sprintf("w%d", n)},
			}}, metav1.CreateOptions{})
			return err
		})
	}
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	i, err := inventory.New(inventory.Options{API: apiREST, ClusterID: "test", Limit: 2, Types: []string{"namespaces"}, CustomResources: true})
	if err != nil {
		t.Fatal(err)
	}
	index := &memory{known: map[string]map[string]inventory.Identity{}}
	eventually(t, func() error { // the definition is served some time after it is there
		s := &shelf{}
		if got := outcomes(i.Run(t.Context(), s, index, nil)); got["widgets."+group] != inventory.OK {
			return fmt.Errorf("outcomes %v", got)
		}
		return nil
	})

	touch := func(widget string) {
		if _, err := widgets.Namespace(ns).Patch(t.Context(), widget, "application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}
	touch("w0")
	touch("w1")
	deleted := false
	s := &shelf{}
	s.onObject = func(o inventory.Object) {
		if o.Kind != "Widget" || o.Namespace != ns || deleted {
			return
		}
		deleted = true
		if err := definitions.Delete(t.Context(), "widgets."+group, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		eventually(t, func() error {
			if _, err := widgets.List(t.Context(), metav1.ListOptions{Limit: 1}); err == nil {
				return errors.New("widgets are still served")
			}
			return nil
		})
	}
	r := i.Run(t.Context(), s, index, nil)
	if got := outcomes(r); !deleted || got["widgets."+group] != inventory.Absent || got["namespaces"] != inventory.OK {
		t.Errorf("deleted %t, outcomes %v", deleted, got)
	}
	gone := widgetsGone(s, ns)
	if gone > 0 {
		t.Errorf("%d widgets were told to be gone by a run that saw them", gone)
	}
	eventually(t, func() error {
		s := &shelf{}
		i.Run(t.Context(), s, index, nil)
		if gone += widgetsGone(s, ns); gone != 5 {
			return fmt.Errorf("%d widgets were told to be gone, want 5", gone)
		}
		return nil
	})
}

// widgetsGone counts the widgets of a namespace that were told to be gone.
func widgetsGone(s *shelf, namespace string) (n int) {
	for _, id := range s.gone {
		if id.Kind == "Widget" && id.Namespace == namespace {
			n++
		}
	}
	return n
}

// TestInventoryEngineUnknownCustomResources: if the definitions may not be
// listed, the custom resources are missing, and no run is complete.
func TestInventoryEngineUnknownCustomResources(t *testing.T) {
	t.Parallel()
	cfg := rest.AnonymousClientConfig(apiREST)
	cfg.BearerToken = newIdentity(t).token
	r := inventoryRun(t, cfg, &shelf{}, inventory.Options{Types: []string{"pods"}, CustomResources: true})
	if got := outcomes(r); got["pods"] != inventory.OK || got["customResources"] != inventory.Forbidden || r.Result != inventory.Partial {
		t.Errorf("outcomes %v, result %s", got, r.Result)
	}
}

// full is a contract that takes one object.
type full struct{ shelf }

func (f *full) Add(ctx context.Context, o inventory.Object) error {
	if len(f.objects) > 0 {
		return errors.New("full")
	}
	return f.shelf.Add(ctx, o)
}

// TestInventoryEngineNamesEveryType: also those that were not begun because the
// endpoint takes no more.
func TestInventoryEngineNamesEveryType(t *testing.T) {
	t.Parallel()
	create(t, newPod(newNamespace(t), "pod", "a"))
	r := inventoryRun(t, apiREST, &full{}, inventory.Options{Types: []string{"namespaces", "pods", "nodes"}})
	for _, name := range []string{"namespaces", "pods", "nodes"} {
		if got := outcomes(r)[name]; got != inventory.Failed {
			t.Errorf("%s is %q", name, got)
		}
	}
	if r.Result == inventory.Complete {
		t.Errorf("result %s", r.Result)
	}
}

// TestInventoryEngineSurvivesABug: what panics over one type is named, and tells
// nothing of an object; the other types arrive.
func TestInventoryEngineSurvivesABug(t *testing.T) {
	t.Parallel()
	create(t, newPod(newNamespace(t), "pod", "a"))
	s := &shelf{onObject: func(o inventory.Object) {
		if o.Kind == "Pod" {
			panic(inventoryCanary) //nolint:forbidigo // the bug
		}
	}}
	r := inventoryRun(t, apiREST, s, inventory.Options{Types: []string{"pods", "namespaces"}})
	if got := outcomes(r); got["pods"] != inventory.Failed || got["namespaces"] != inventory.OK || r.Result != inventory.Partial {
		t.Errorf("outcomes %v, result %s", got, r.Result)
	}
	if strings.Contains(fmt.Sprintf("%+v", *r), inventoryCanary) {
		t.Errorf("the report tells too much: %+v", *r)
	}
}
