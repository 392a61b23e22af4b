package charts_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/metawire/metawire/charts"
)

// The templates rely on each of these.
func TestResourceTypes(t *testing.T) {
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	if len(types) == 0 {
		t.Fatal("the table is empty")
	}
	if !slices.IsSortedFunc(types, func(a, b charts.ResourceType) int {
		return strings.Compare(a.Group+" "+a.Resource, b.Group+" "+b.Resource)
	}) {
		t.Error("the table is not sorted by group, then resource")
	}
	seen := map[string]bool{}
	for _, rt := range types {
		if rt.Resource == "" || rt.Kind == "" {
			t.Errorf("%+v: resource and kind are required", rt)
		}
		if strings.ToLower(rt.Resource) != rt.Resource || strings.ContainsAny(rt.Resource, "./*") {
			t.Errorf("%s: not the plural of a resource", rt.Name())
		}
		if seen[rt.Resource] {
			t.Errorf("%s: a second type of that resource: a bare name would mean two types", rt.Name())
		}
		seen[rt.Resource] = true
		if rt.Sensitive && (rt.Streamed || rt.Inventory) {
			t.Errorf("%s: sensitive, yet read by default", rt.Name())
		}
	}
	if !seen["secrets"] {
		t.Error("secrets are missing: they could be added only in every API group")
	}
}
