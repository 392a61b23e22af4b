package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/collector/config"
)

// typeRow is what becomes of a resource type.
type typeRow struct {
	Name       string `json:"name"` // resource.group
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Configured bool   `json:"configured"`
	Served     bool   `json:"served"`
	Allowed    bool   `json:"allowed"`          // to be listed
	Missed     string `json:"missed,omitempty"` // why it does not arrive
	// lost: it is there and wanted, and does not arrive.
	lost bool
}

func newInventoryTypes() *cobra.Command {
	c := &cobra.Command{
		Use:   "types",
		Short: "Say which resource types the inventory has, and which it misses, and why",
		Long: `For each resource type: is it configured, does the API server serve it, and may
whoever asks list it? And so, what does not arrive, and why.

The types are those of --config, or else those that the chart collects unless its
values say otherwise. Rights are those of the kubeconfig; --as asks for those of
another, such as the collector. That takes the permission to impersonate it.

Exit codes: 0 every configured type that is served arrives, 2 some do not, 1 error.`,
		Example: `  metawire inventory types

  # With the rights of the collector, and what is served but not configured
  metawire inventory types --all --as system:serviceaccount:metawire:metawire-collector

  # What to add to the chart's value addTypes
  metawire inventory types --all -o json | jq -r '.[] | select(.configured | not) | .name'`,
		Args: cobra.NoArgs,
	}
	var r inventoryRun
	r.flags(c)
	var all bool
	c.Flags().BoolVar(&all, "all", false, "also show what is served and not configured")
	output := outputFlag(c, "table", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		rows, err := r.types(c.Context())
		if err != nil {
			return err
		}
		more := len(rows)
		if !all {
			rows = slices.DeleteFunc(rows, func(r typeRow) bool { return !r.Configured })
		}
		more -= len(rows)
		if output.value == "json" {
			err = json.NewEncoder(c.OutOrStdout()).Encode(rows)
		} else {
			err = writeTypes(c.OutOrStdout(), rows, more)
		}
		if err != nil {
			return fmt.Errorf("print the types: %w", err)
		}
		if slices.ContainsFunc(rows, func(r typeRow) bool { return r.lost }) {
			return fmt.Errorf("%w: types are missed", errFinding)
		}
		return nil
	}
	return c
}

func (r *inventoryRun) types(ctx context.Context) ([]typeRow, error) {
	cfg, err := r.configuration()
	if err != nil {
		return nil, err
	}
	secret, err := sensitive()
	if err != nil {
		return nil, err
	}
	api, err := r.api()
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", api.Host, err)
	}
	names, err := configuredTypes(ctx, api, &cfg.Inventory)
	if err != nil {
		return nil, err
	}
	return typeRows(ctx, clients, names, secret)
}

// catalog is what an API server serves.
type catalog struct {
	types  map[string]typeRow // that can be listed, by name
	broken map[string]error   // groups that it cannot tell of
}

func newCatalog(ctx context.Context, api kubernetes.Interface) (*catalog, error) {
	lists, err := discovery.ToDiscoveryInterfaceWithContext(api.Discovery()).ServerPreferredResourcesWithContext(ctx)
	broken, partial := discovery.GroupDiscoveryFailedErrorGroups(err)
	if err != nil && !partial {
		return nil, fmt.Errorf("ask the API server what it serves: %w", err)
	}
	c := &catalog{types: map[string]typeRow{}, broken: map[string]error{}}
	for version, err := range broken {
		c.broken[version.Group] = err
	}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("what the API server serves: %w", err)
		}
		for _, r := range list.APIResources {
			if slices.Contains(r.Verbs, "list") {
				name := schema.GroupResource{Group: version.Group, Resource: r.Name}.String()
				c.types[name] = typeRow{Name: name, APIVersion: list.GroupVersion, Kind: r.Kind, Served: true}
			}
		}
	}
	return c, nil
}

// find returns the types that a configured name means: that of its group, or
// without a group that of the core group, else those of every group.
func (c *catalog) find(name string) []typeRow {
	if t, ok := c.types[name]; ok {
		return []typeRow{t}
	}
	var found []typeRow
	if t := schema.ParseGroupResource(name); t.Group == "" {
		for other, row := range c.types {
			if schema.ParseGroupResource(other).Resource == t.Resource {
				found = append(found, row)
			}
		}
	}
	if len(found) > 0 {
		return found
	}
	row := typeRow{Name: name, Missed: "this API server does not serve it"}
	if err := c.broken[schema.ParseGroupResource(name).Group]; err != nil {
		row.Missed, row.lost = "the API server cannot tell of the group: "+err.Error(), true
	}
	return []typeRow{row}
}

// typeRows returns the configured types and those that are served besides,
// sorted by name.
func typeRows(ctx context.Context, api kubernetes.Interface, names []string, secret func(string) bool) ([]typeRow, error) {
	c, err := newCatalog(ctx, api)
	if err != nil {
		return nil, err
	}
	rows := map[string]typeRow{}
	for _, name := range names {
		for _, row := range c.find(name) {
			row.Configured = true
			rows[row.Name] = row
		}
	}
	for name, row := range c.types {
		if _, ok := rows[name]; !ok {
			row.Missed = "not configured: add it to the chart's addTypes"
			if secret(name) {
				row.Missed = "holds credentials, so it is only collected when it is added"
			}
			rows[name] = row
		}
	}
	sorted := slices.SortedFunc(maps.Values(rows), func(a, b typeRow) int { return cmp.Compare(a.Name, b.Name) })
	if err := allow(ctx, api, sorted); err != nil {
		return nil, err
	}
	for i := range sorted {
		if r := &sorted[i]; r.Configured && r.Served && !r.Allowed {
			r.Missed, r.lost = "forbidden: no role lets it be listed", true
		}
	}
	return sorted, nil
}

// configuredTypes are the names that the configuration means: with
// customResources those of CustomResourceDefinitions too, whose names are such.
func configuredTypes(ctx context.Context, api *rest.Config, i *config.Inventory) ([]string, error) {
	names := slices.Clone(i.Resources)
	if !i.CustomResources {
		return names, nil
	}
	clients, err := metadata.NewForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", api.Host, err)
	}
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	list, err := clients.Resource(definitions).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the CustomResourceDefinitions, which inventory.customResources takes: %w", err)
	}
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names, nil
}

// sensitive says which types hold credentials.
func sensitive() (func(string) bool, error) {
	known, err := charts.ResourceTypes()
	if err != nil {
		return nil, err
	}
	return func(name string) bool {
		return slices.ContainsFunc(known, func(t charts.ResourceType) bool { return t.Sensitive && t.Name() == name })
	}, nil
}

// allow asks which rows may be listed.
func allow(ctx context.Context, api kubernetes.Interface, rows []typeRow) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range rows {
		r := &rows[i]
		if !r.Served {
			continue
		}
		g.Go(func() error {
			t := schema.ParseGroupResource(r.Name)
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Group: t.Group, Resource: t.Resource},
			}}
			answer, err := api.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("ask whether %s may be listed: %w", r.Name, err)
			}
			r.Allowed = answer.Status.Allowed
			return nil
		})
	}
	return g.Wait()
}

func writeTypes(w io.Writer, rows []typeRow, more int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TYPE\tVERSION\tCONFIGURED\tSERVED\tALLOWED\tMISSED")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, cmp.Or(r.APIVersion, "-"), yes(r.Configured), yes(r.Served), yes(r.Allowed), r.Missed)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more > 0 {
		_, err := fmt.Fprintf(w, "%d more types are served and not configured: --all shows them\n", more)
		return err
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
