package chart_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/source"
)

// A typeKey is a resource type; group "*" is every group.
type typeKey struct{ group, resource string }

func (k typeKey) name() string {
	if k.group == "" || k.group == "*" {
		return k.resource
	}
	return k.resource + "." + k.group
}

// settings are the values that a property test varies.
type settings struct {
	stream, inventory bool
	add, remove       []string
	clusterID         string
	ports             [3]int // stream, health, metrics
	burst             int    // 0: not set
	rate              float64
	maxAge            string
	replicas          int
}

func (s settings) values() string {
	pacing := map[string]any{}
	if s.burst > 0 {
		pacing["burst"] = s.burst
	}
	if s.rate > 0 {
		pacing["rate"] = s.rate
	}
	v, err := json.Marshal(map[string]any{
		"clusterID":   s.clusterID,
		"addTypes":    s.add,
		"removeTypes": s.remove,
		"stream":      map[string]any{"enabled": s.stream, "port": s.ports[0], "pacing": pacing, "maxAge": s.maxAge},
		"inventory":   map[string]any{"enabled": s.inventory},
		"collector": map[string]any{
			"replicas": s.replicas,
			"ports":    map[string]any{"health": s.ports[1], "metrics": s.ports[2]},
		},
	})
	if err != nil {
		return err.Error()
	}
	return string(v)
}

// unknown types collide with each other and with known ones on purpose.
var unknownTypes = []string{
	"applications.argoproj.io", "applications.app.k8s.io", "applications",
	"pods.metrics.k8s.io", "deployments.extensions", "widgets", "widgets.example.com", "a-b", "a-b.c", "a.c",
}

func drawSettings(types []charts.ResourceType) *rapid.Generator[settings] {
	names := slices.Clone(unknownTypes)
	for _, rt := range types {
		names = append(names, rt.Name(), rt.Resource)
	}
	some := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(names), rapid.SampledFrom(unknownTypes)), 0, 8)
	return rapid.Custom(func(t *rapid.T) settings {
		s := settings{
			stream:    rapid.Bool().Draw(t, "stream"),
			add:       some.Draw(t, "add"),
			remove:    some.Draw(t, "remove"),
			clusterID: rapid.StringMatching(`[a-z0-9_-]{1,20}`).Draw(t, "clusterID"),
			burst:     rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 1000000)).Draw(t, "burst"),
			maxAge:    rapid.SampledFrom([]string{"", "0", "1m", "6h", "90m", "1h30m", "99999h"}).Draw(t, "maxAge"),
			replicas:  rapid.IntRange(1, 100).Draw(t, "replicas"),
		}
		s.inventory = !s.stream || rapid.Bool().Draw(t, "inventory")
		s.rate = rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(math.SmallestNonzeroFloat64, 1000000)).Draw(t, "rate")
		copy(s.ports[:], rapid.SliceOfNDistinct(rapid.IntRange(1024, 65535), 3, 3, rapid.ID).Draw(t, "ports"))
		return s
	})
}

// collected applies addTypes and removeTypes as docs and values say, on its
// own: it shares nothing with the templates but the table. The error is for a
// removal that the chart must refuse.
func collected(types []charts.ResourceType, s settings) (map[typeKey]bool, error) {
	set := map[typeKey]bool{}
	if !s.inventory {
		return set, nil
	}
	parse := func(entry string) typeKey {
		if resource, group, dotted := strings.Cut(entry, "."); dotted {
			return typeKey{group, resource}
		}
		for _, rt := range types {
			if rt.Resource == entry {
				return typeKey{rt.Group, rt.Resource}
			}
		}
		return typeKey{"*", entry}
	}
	for _, rt := range types {
		if rt.Inventory {
			set[typeKey{rt.Group, rt.Resource}] = true
		}
	}
	for _, entry := range s.add {
		set[parse(entry)] = true
	}
	for _, entry := range s.remove {
		gone := parse(entry)
		if gone.group != "*" && set[typeKey{"*", gone.resource}] {
			return nil, fmt.Errorf("%s is part of %s", entry, gone.resource)
		}
		maps.DeleteFunc(set, func(k typeKey, _ bool) bool {
			return k == gone || gone.group == "*" && k.resource == gone.resource
		})
	}
	return set, nil
}

// granted returns the verbs that the collector's ClusterRole gives, by type.
func granted(role *rbacv1.ClusterRole) (map[typeKey]string, error) {
	verbs := map[typeKey]string{}
	for _, rule := range role.Rules {
		if len(rule.NonResourceURLs) > 0 || len(rule.ResourceNames) > 0 || len(rule.APIGroups) != 1 {
			return nil, fmt.Errorf("not a rule of one API group and its resources: %v", rule)
		}
		if !slices.IsSorted(rule.Resources) {
			return nil, fmt.Errorf("resources are not sorted: %v", rule)
		}
		for _, resource := range rule.Resources {
			k := typeKey{rule.APIGroups[0], resource}
			if _, twice := verbs[k]; twice {
				return nil, fmt.Errorf("%v is granted twice", k)
			}
			verbs[k] = strings.Join(rule.Verbs, ",")
		}
	}
	return verbs, nil
}

// TestRBACEqualsConfiguredTypes: for any values, the collector may read what
// it is configured to read and nothing else, and its own loader takes the
// configuration, with every value in it.
func TestRBACEqualsConfiguredTypes(t *testing.T) {
	ch := loadChart(t, validateTemplate)
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	gen := drawSettings(types)
	rapid.Check(t, func(t *rapid.T) {
		s := gen.Draw(t, "settings")
		inventory, refused := collected(types, s)
		files, err := render(ch, s.values())
		if refused != nil {
			if err == nil || !strings.Contains(err.Error(), "removeTypes: ") {
				t.Fatalf("%v: want it refused by name, got: %v", refused, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := render(ch, s.values())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(files, again); d != "" {
			t.Fatalf("a second rendering differs:\n%s", d)
		}
		objs, err := objects(files)
		if err != nil {
			t.Fatal(err)
		}
		checkRole(t, objs, types, s, inventory)
		checkConfig(t, objs, s, inventory)
	})
}

func checkRole(t *rapid.T, objs []*unstructured.Unstructured, types []charts.ResourceType, s settings, inventory map[typeKey]bool) {
	role, err := find[rbacv1.ClusterRole](objs, "ClusterRole", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	got, err := granted(role)
	if err != nil {
		t.Fatal(err)
	}
	want := map[typeKey]string{}
	for k := range inventory {
		want[k] = "list"
	}
	if s.stream {
		for _, rt := range types {
			if rt.Streamed {
				want[typeKey{rt.Group, rt.Resource}] = "list,watch"
			}
		}
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(typeKey{})); d != "" {
		t.Fatalf("RBAC is not what is configured (-configured +granted):\n%s", d)
	}
	for k := range got {
		if k.group == "*" && !slices.Contains(s.add, k.resource) {
			t.Fatalf("%s is granted in every group, and was not asked for so", k.resource)
		}
		if k.resource == "secrets" && !slices.ContainsFunc(s.add, func(e string) bool { return strings.HasPrefix(e, "secrets") }) {
			t.Fatalf("%v is granted and was not added", k)
		}
	}
	for _, o := range objs {
		if k := o.GetKind(); (k == "ClusterRole" || k == "Role") && o.GetName() != role.Name {
			t.Fatalf("%s %s grants more", k, o.GetName())
		}
	}
}

func checkConfig(t *rapid.T, objs []*unstructured.Unstructured, s settings, inventory map[typeKey]bool) {
	cm, err := find[corev1.ConfigMap](objs, "ConfigMap", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Decode([]byte(cm.Data["collector.yaml"]))
	if err != nil {
		t.Fatalf("the collector refuses its configuration: %v\n%s", err, cm.Data["collector.yaml"])
	}
	want := config.Config{
		APIVersion: config.APIVersion,
		Kind:       config.Kind,
		ClusterID:  s.clusterID,
		Health:     config.Listener{Address: fmt.Sprintf(":%d", s.ports[1])},
		Metrics:    config.Listener{Address: fmt.Sprintf(":%d", s.ports[2])},
		Stream: config.Stream{
			Enabled:       s.stream,
			Address:       fmt.Sprintf(":%d", s.ports[0]),
			TLS:           config.TLS{Mode: config.TLSDisabled},
			Pacing:        config.Pacing{Burst: config.DefaultPacingBurst, Rate: config.DefaultPacingRate},
			MaxAge:        config.Duration(config.DefaultMaxAge),
			Authorization: config.AuthorizationDisabled,
		},
		Inventory: config.Inventory{Enabled: s.inventory, Contract: config.ContractObjects, Resources: []string{}},
	}
	if s.burst > 0 {
		want.Stream.Pacing.Burst = s.burst
	}
	if s.rate > 0 {
		want.Stream.Pacing.Rate = s.rate
	}
	if s.maxAge != "" {
		age, err := time.ParseDuration(s.maxAge)
		if err != nil {
			t.Fatal(err)
		}
		want.Stream.MaxAge = config.Duration(age)
	}
	for k := range inventory {
		want.Inventory.Resources = append(want.Inventory.Resources, k.name())
	}
	slices.Sort(want.Inventory.Resources)
	if d := cmp.Diff(want, *got); d != "" {
		t.Fatalf("the configuration is not what the values say (-values +configuration):\n%s", d)
	}
}

// TestStreamedTypes: the types that the chart lets the collector watch are
// those that the stream is made of.
func TestStreamedTypes(t *testing.T) {
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rt := range types {
		if rt.Streamed {
			got = append(got, rt.Name())
		}
	}
	var want []string
	for _, k := range source.Kinds() {
		want = append(want, k.Resource.GroupResource().String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("streamed types of the table (-collector +table):\n%s", d)
	}
}

// TestDefaultInventory: the default list is the documented one.
func TestDefaultInventory(t *testing.T) {
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rt := range types {
		if rt.Inventory {
			got = append(got, rt.Resource)
		}
	}
	want := strings.Fields(`
		apiservices analysistemplates clusteranalysistemplates clusterroles clusterrolebindings configmaps
		controllerrevisions cronjobs csinodes customresourcedefinitions daemonsets deployments endpoints
		endpointslices flowschemas ingresses jobs leases namespaces networkpolicies nodes persistentvolumeclaims
		persistentvolumes pods priorityclasses prioritylevelconfigurations replicasets replicationcontrollers
		roles rolebindings rollouts serviceaccounts services statefulsets storageclasses poddisruptionbudgets
		ingressclasses volumeattachments csidrivers validatingwebhookconfigurations mutatingwebhookconfigurations
		runtimeclasses horizontalpodautoscalers`)
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("default inventory (-documented +table):\n%s", d)
	}
}
