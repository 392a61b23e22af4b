package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
)

// found is a configured type, or a reason why there is none.
type found struct {
	Type

	outcome Outcome // OK: it can be listed
	err     string
}

// catalog is what the API server serves.
type catalog struct {
	types map[schema.GroupResource]Type
	// unlisted are served and cannot be listed.
	unlisted map[schema.GroupResource]bool
	// broken are groups whose discovery failed, with why.
	broken map[string]error
}

// discover reads what the API server serves, at its preferred versions. A group
// whose own server does not answer is broken, and hides nothing of others.
func discover(ctx context.Context, client discovery.DiscoveryInterface) (*catalog, error) {
	c := &catalog{types: map[schema.GroupResource]Type{}, unlisted: map[schema.GroupResource]bool{}, broken: map[string]error{}}
	lists, err := discovery.ServerPreferredResourcesWithContext(ctx, discovery.ToDiscoveryInterfaceWithContext(client))
	if failed := (*discovery.ErrGroupDiscoveryFailed)(nil); errors.As(err, &failed) {
		for gv, err := range failed.Groups {
			c.broken[gv.Group] = err
		}
	} else if err != nil && len(lists) == 0 {
		return nil, fmt.Errorf("discover what the API server serves: %w", err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue // it cannot be asked for
		}
		for _, r := range list.APIResources {
			id := schema.GroupResource{Group: gv.Group, Resource: r.Name}
			if strings.Contains(r.Name, "/") {
				continue
			}
			if !slices.Contains([]string(r.Verbs), "list") {
				c.unlisted[id] = true
				continue
			}
			c.types[id] = Type{
				Name: id.String(), Group: gv.Group, Version: gv.Version, Resource: r.Name, Kind: r.Kind, Namespaced: r.Namespaced,
			}
		}
	}
	return c, nil
}

// resolve finds a configured name: resource.group, a resource of the core group,
// or else that resource in every group.
func (c *catalog) resolve(name string) []found {
	id := schema.ParseGroupResource(name)
	if t, ok := c.types[id]; ok {
		return []found{{Type: t, outcome: OK}}
	}
	var all []found
	if id.Group == "" {
		for other, t := range c.types {
			if other.Resource == id.Resource {
				all = append(all, found{Type: t, outcome: OK})
			}
		}
		slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.Name, b.Name) })
	}
	err := c.broken[id.Group]
	switch {
	case len(c.broken) > 0 && id.Group == "": // they may serve it too
		groups := strings.Join(slices.Sorted(maps.Keys(c.broken)), ", ")
		return append(all, found{Type: Type{Name: name}, outcome: Failed, err: fmt.Sprintf("API groups that may serve it cannot be discovered (%s): name it with its group", groups)})
	case len(all) > 0:
		return all
	case err != nil:
		return []found{{Type: Type{Name: name}, outcome: Failed, err: fmt.Sprintf("the API group %q cannot be discovered: %v", id.Group, err)}}
	case c.unlisted[id]:
		return []found{{Type: Type{Name: name}, outcome: Absent, err: "the API server serves it, and lets nobody list it"}}
	}
	return []found{{Type: Type{Name: name}, outcome: Absent}}
}

// resolveAll finds all configured names, each type once.
func (c *catalog) resolveAll(names []string) []found {
	var all []found
	seen := map[string]bool{}
	for _, name := range names {
		for _, f := range c.resolve(name) {
			if !seen[f.Name] {
				seen[f.Name] = true
				all = append(all, f)
			}
		}
	}
	return all
}

// lost are the types of which the endpoint has objects, and that are neither
// there nor in a group that does not answer: their definitions were deleted.
func (c *catalog) lost(names []string, there []found) []found {
	var all []found
	for _, name := range names {
		if c.broken[schema.ParseGroupResource(name).Group] == nil && !slices.ContainsFunc(there, func(f found) bool { return f.Name == name }) {
			all = append(all, found{Type: Type{Name: name}, outcome: Absent, err: "it is collected no more"})
		}
	}
	return all
}

// unknownCustom stands for all custom resources, if their definitions cannot be
// listed: they are missing.
func unknownCustom(err error) found {
	f := found{Type: Type{Name: "customResources"}, outcome: Failed, err: err.Error()}
	if apierrors.IsForbidden(err) {
		f.outcome = Forbidden
	}
	return f
}

// custom returns the types that CustomResourceDefinitions of the groups define, no
// groups being all of them, but for those that are there already. Types of other
// groups are not configured: others are their names.
func (c *catalog) custom(ctx context.Context, client metadata.Interface, groups []string, there []found) (all []found, others []string, err error) {
	definitions, err := client.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list the CustomResourceDefinitions: %w", err)
	}
	names := map[string]bool{}
	for _, d := range definitions.Items { // <plural>.<group>
		names[d.Name] = true
	}
	for _, f := range there {
		delete(names, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if len(groups) > 0 && !slices.Contains(groups, schema.ParseGroupResource(name).Group) {
			others = append(others, name)
			continue
		}
		all = append(all, c.resolve(name)...)
	}
	return all, others, nil
}
