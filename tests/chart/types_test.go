package chart_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/charts"
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
		if g := s.ships.groups; len(g) > 0 && (gone.group == "*" || slices.Contains(g, gone.group)) {
			return nil, fmt.Errorf("%s is part of %v", entry, g)
		}
		if len(s.ships.groups) > 0 && gone == (typeKey{"apiextensions.k8s.io", "customresourcedefinitions"}) {
			return nil, fmt.Errorf("%s says what is in %v", entry, s.ships.groups)
		}
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
	ch := loadChart(t)
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
		checkCollectorConfig(t, objs, s, inventory)
		checkCronJobConfig(t, objs, s, inventory)
		checkCanary(t, objs)
		checkWebhookConfig(t, objs, s)
		checkNamespaces(t, objs, s)
	})
}

func checkRole(t *rapid.T, objs []*unstructured.Unstructured, types []charts.ResourceType, s settings, inventory map[typeKey]bool) {
	want := map[string]map[typeKey]string{} // by role
	if s.stream {
		want["metawire-collector"] = map[typeKey]string{}
		for _, rt := range types {
			if rt.Streamed {
				want["metawire-collector"][typeKey{rt.Group, rt.Resource}] = "list,watch"
			}
		}
	}
	if s.inventory {
		sender := "metawire-collector"
		if s.ships.cronJob {
			sender = "metawire-inventory-types"
		}
		if want[sender] == nil {
			want[sender] = map[typeKey]string{}
		}
		for _, group := range s.ships.groups {
			want[sender][typeKey{group, "*"}] = "list"
		}
		for k := range inventory {
			if want[sender][k] == "" && !slices.Contains(s.ships.groups, k.group) {
				want[sender][k] = "list"
			}
		}
	}
	got := map[string]map[typeKey]string{}
	for _, name := range []string{"metawire-collector", "metawire-inventory-types"} {
		role, err := find[rbacv1.ClusterRole](objs, "ClusterRole", name)
		if err != nil {
			continue // compared below
		}
		if got[name], err = granted(role); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(typeKey{})); d != "" {
		t.Fatalf("RBAC is not what is configured (-configured +granted):\n%s", d)
	}
	for _, types := range got {
		checkTypes(t, s, types)
	}
	checkOtherRoles(t, objs, s)
}

// checkTypes: nothing broad, and no Secrets, that the user did not write.
func checkTypes(t *rapid.T, s settings, got map[typeKey]string) {
	for k := range got {
		if k.group == "*" && !slices.Contains(s.add, k.resource) {
			t.Fatalf("%s is granted in every group, and was not asked for so", k.resource)
		}
		if k.resource == "secrets" && !slices.ContainsFunc(s.add, func(e string) bool { return strings.HasPrefix(e, "secrets") }) {
			t.Fatalf("%v is granted and was not added", k)
		}
		if k.resource == "*" && !slices.Contains(s.ships.groups, k.group) {
			t.Fatalf("all of %s is granted and was not asked for", k.group)
		}
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
