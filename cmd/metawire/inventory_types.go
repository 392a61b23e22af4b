package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/rights"
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
the sender list it? And so, what does not arrive, and why.

The types are those of the release in the cluster, and the rights those of its
collector, or of its CronJob; to ask for them takes the permission to impersonate
it. Where no release has an inventory, or with --config, the types are those of the
file, or else those that the chart collects unless its values say otherwise, and the
rights those of the kubeconfig. --as asks for the rights of somebody else.

Exit codes: 0 every configured type that is served arrives, 2 some do not, 1 error.`,
		Example: `  metawire inventory types

  # Before an install
  metawire inventory types --config collector.yaml

  # What to add to the chart's value addTypes
  metawire inventory types --all -o json | jq -r '.[] | select(.configured | not) | .name'`,
		Args: cobra.NoArgs,
	}
	var r inventoryRun
	r.flags(c)
	c.Flags().StringVarP(&r.cluster.namespace, "namespace", "n", "", "`namespace` that Metawire is installed in (default: it is looked for in all)")
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
	if err == nil && r.file == "" {
		err = r.ofRelease(ctx, cfg)
	}
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
	types, err := inventory.Prospects(ctx, inventory.Options{
		API: api, Types: cfg.Inventory.Resources,
		CustomResources: cfg.Inventory.CustomResources, CustomResourceGroups: cfg.Inventory.CustomResourceGroups,
	})
	if err != nil {
		return nil, err
	}
	return typeRows(ctx, clients, types, secret)
}

// ofRelease takes the types of the release that is installed, if it has an
// inventory, and asks as whoever sends it.
func (r *inventoryRun) ofRelease(ctx context.Context, cfg *config.Config) error {
	found, _, err := r.cluster.find(ctx)
	if errors.Is(err, installation.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	sender, err := found.Sender(ctx)
	if errors.Is(err, installation.ErrNoInventory) {
		return nil
	}
	if err != nil {
		return err
	}
	cfg.Inventory.Resources = sender.Resources
	cfg.Inventory.CustomResources, cfg.Inventory.CustomResourceGroups = sender.CustomResources, sender.CustomResourceGroups
	if r.as == "" {
		r.as, err = found.Account(ctx, sender)
	}
	return err
}

// typeRows says of the types what becomes of them, and asks which may be listed.
func typeRows(ctx context.Context, api kubernetes.Interface, types []inventory.Prospect, secret func(string) bool) ([]typeRow, error) {
	rows := make([]typeRow, len(types))
	for i, t := range types {
		rows[i] = typeRow{Name: t.Name, Configured: t.Configured, Served: t.Outcome == inventory.OK, Kind: t.Kind, APIVersion: t.APIVersion()}
	}
	if err := allow(ctx, api, rows); err != nil {
		return nil, err
	}
	for i, t := range types {
		r := &rows[i]
		switch {
		case t.Outcome == inventory.Failed:
			r.Missed, r.lost = t.Error, true
		case !r.Served:
			r.Missed = cmp.Or(t.Error, "this API server does not serve it")
		case !r.Configured && secret(r.Name):
			r.Missed = "holds credentials, so it is only collected when it is added"
		case !r.Configured:
			r.Missed = "not configured: add it to the chart's addTypes"
		case !r.Allowed:
			r.Missed, r.lost = "forbidden: no role lets it be listed", true
		}
	}
	return rows, nil
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
	list := func(r typeRow) rights.Right {
		t := schema.ParseGroupResource(r.Name)
		return rights.Right{Verb: "list", Group: t.Group, Resource: t.Resource}
	}
	var served []rights.Right
	for _, r := range rows {
		if r.Served {
			served = append(served, list(r))
		}
	}
	allowed, err := rights.Held(ctx, api, nil, served)
	for i, r := range rows {
		rows[i].Allowed = slices.Contains(allowed, list(r))
	}
	return err
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
