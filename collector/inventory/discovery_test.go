package inventory

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func testCatalog(broken ...string) *catalog {
	c := &catalog{types: map[schema.GroupResource]Type{}, unlisted: map[schema.GroupResource]bool{{Group: "authentication.k8s.io", Resource: "tokenreviews"}: true}, broken: map[string]error{}}
	for _, name := range []string{"pods", "pods.metrics.k8s.io", "deployments.apps", "widgets.a.example", "widgets.b.example"} {
		id := schema.ParseGroupResource(name)
		c.types[id] = Type{Name: name, Group: id.Group, Version: "v1", Resource: id.Resource}
	}
	for _, group := range broken {
		c.broken[group] = errors.New("it does not answer")
	}
	return c
}

// brief says what became of types, in order.
func brief(all []found) string {
	var b []string
	for _, f := range all {
		b = append(b, f.Name+" "+string(f.outcome))
	}
	return strings.Join(b, ", ")
}

// TestResolve: a name means one type, or that resource in every group; where a
// group does not answer nobody knows, and that is said.
func TestResolve(t *testing.T) {
	for name, c := range map[string]struct {
		names  string
		broken []string
		want   string
	}{
		"core alone":                 {"pods", nil, "pods ok"},
		"with its group":             {"deployments.apps", nil, "deployments.apps ok"},
		"bare, one group":            {"deployments", nil, "deployments.apps ok"},
		"bare, two groups":           {"widgets", nil, "widgets.a.example ok, widgets.b.example ok"},
		"twice":                      {"pods deployments deployments.apps pods", nil, "pods ok, deployments.apps ok"},
		"not served":                 {"nothing nothing.example services/status", nil, "nothing absent, nothing.example absent, services/status absent"},
		"served, not listed":         {"tokenreviews.authentication.k8s.io", nil, "tokenreviews.authentication.k8s.io absent"},
		"broken":                     {"x.broken pods deployments.apps", []string{"broken"}, "x.broken failed, pods ok, deployments.apps ok"},
		"broken, a version is there": {"deployments.apps other.apps", []string{"apps"}, "deployments.apps ok, other.apps failed"},
		"bare while one is broken":   {"widgets nothing", []string{"broken"}, "widgets.a.example ok, widgets.b.example ok, widgets failed, nothing failed"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := brief(testCatalog(c.broken...).resolveAll(strings.Fields(c.names))); got != c.want {
				t.Errorf("%s: %s, want %s", c.names, got, c.want)
			}
		})
	}
}

// TestLost: what is collected no more is gone, unless its group does not answer.
func TestLost(t *testing.T) {
	c := testCatalog("broken")
	got := brief(c.lost([]string{"pods", "old.example", "x.broken"}, c.resolveAll([]string{"pods"})))
	if got != "old.example absent" {
		t.Errorf("lost are %s", got)
	}
	if all := c.lost(nil, nil); !slices.Equal(all, nil) {
		t.Errorf("lost are %v", all)
	}
}
