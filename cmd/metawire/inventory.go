package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/collector/config"
)

// inventoryRun is the command's flags.
type inventoryRun struct {
	cluster      cluster
	file, as     string
	dryRun, once bool
	output       *choice
}

func newInventory() *cobra.Command {
	c := &cobra.Command{
		Use:   "inventory --dry-run | --once --config FILE",
		Short: "Look at what the inventory sends, or send it now",
		Long: `The inventory is what the collector sends of the cluster's objects to an HTTP
endpoint on a schedule. This makes one run from here, with the rights of the
kubeconfig.

With --dry-run nothing is sent; no endpoint, no clusterID and no credential is
needed. -o json
prints one JSON document, {"clusterID", "objects": [...], "report": {...}}: the
objects, redacted as they would be sent, as they come; -o text prints the report
alone. The types are those of --config, or else those that the chart collects
unless its values say otherwise.

With --once the objects are sent as --config FILE says, a CollectorConfig with
inventory and clusterID; nothing else is needed in it. METAWIRE_CLUSTER_ID,
METAWIRE_ACCESS_KEY and METAWIRE_SECRET_KEY win over what it says.

Digests in the place of credentials differ from run to run unless --config names
the file of a key.

Exit codes: 0 the run was complete, 2 it was not (the report says why), 1 error.`,
		Example: `  # What would be sent?
  metawire inventory --dry-run -o json > out.json
  jq '.report | {result, objects: .sent.objects}' out.json

  # How much is it, and what is missing?
  metawire inventory --dry-run

  # Send it once, from a laptop
  METAWIRE_CLUSTER_ID=my-cluster metawire inventory --once --config once.yaml

  # In the cluster: let the collector send now
  metawire inventory trigger`,
		Args: cobra.NoArgs,
	}
	var r inventoryRun
	r.flags(c)
	f := c.Flags()
	f.BoolVar(&r.dryRun, "dry-run", false, "send nothing: print what would be sent")
	f.BoolVar(&r.once, "once", false, "make one run and send it")
	c.MarkFlagsMutuallyExclusive("dry-run", "once")
	r.output = outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !r.dryRun && !r.once {
			return errNothingToDo
		}
		return r.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
	}
	c.AddCommand(newInventoryTypes(), newInventoryTrigger(), newInventoryReceive())
	return c
}

// flags adds what says which cluster, as whom, and which types.
func (r *inventoryRun) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.cluster.kubeconfig, "kubeconfig", "", "`file` with the clusters to choose from (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&r.cluster.context, "context", "", "`name` of the kubeconfig's context (default: the current one)")
	f.StringVar(&r.as, "as", "", "`user` to be for the API server, such as system:serviceaccount:metawire:metawire-collector")
	f.StringVar(&r.file, "config", "", "`FILE` with a CollectorConfig")
}

var errNothingToDo = errors.New("say what to do: --dry-run, --once, or a command: types, trigger, receive (see metawire inventory --help)")

func (r *inventoryRun) api() (*rest.Config, error) {
	api, _, err := r.cluster.config()
	if err != nil {
		return nil, err
	}
	api.Impersonate.UserName = r.as
	api.QPS, api.Burst = 50, 100           // a question for each type
	api.WarningHandler = rest.NoWarnings{} // that a type is deprecated does not matter here
	return api, nil
}

// configuration is that of --config, or else what the chart collects by default.
func (r *inventoryRun) configuration() (*config.Config, error) {
	if r.file == "" && r.once {
		return nil, errors.New("--once needs --config FILE: it says what to send, and where to")
	}
	switch {
	case r.once:
		return config.LoadInventory(r.file, os.Getenv)
	case r.file != "":
		return config.LoadDryRun(r.file, os.Getenv)
	}
	known, err := charts.ResourceTypes()
	if err != nil {
		return nil, err
	}
	cfg := &config.Config{ClusterID: os.Getenv("METAWIRE_CLUSTER_ID")}
	cfg.Inventory.Redaction.Mode = config.RedactionOn
	for _, t := range known {
		if t.Inventory {
			cfg.Inventory.Resources = append(cfg.Inventory.Resources, t.Name())
		}
	}
	return cfg, nil
}
