package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/endpoint"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/version"
)

// addInventory sets up the runs of the inventory, by the replica that holds the
// Lease.
func (c *Collector) addInventory(api *rest.Config) error {
	s, err := newShipper(c.cfg, api, c.log, inventory.NewMetrics(c.registry))
	if err != nil {
		return err
	}
	i := c.cfg.Inventory
	schedule, err := inventory.NewSchedule(i.Schedule, i.TimeZone, time.Duration(i.Jitter))
	if err != nil {
		return fmt.Errorf("inventory.schedule: %w", err)
	}
	service := &inventory.Service{State: s.state, Schedule: schedule, Run: s.run, Log: c.log, Metrics: s.metrics}
	c.parts = append(c.parts, service.Start)
	return nil
}

// InventoryOnce makes one run as the configuration says, and blocks until it has
// ended. In a cluster it waits for the Lease first, so that no two runs go on at
// once, and tells what came of the run there too. The error is of what kept it
// from beginning; what came of it is in the report. Progress may be nil.
func InventoryOnce(ctx context.Context, cfg *config.Config, api *rest.Config, log *slog.Logger, progress func(inventory.Progress)) (*inventory.Report, error) {
	s, err := newShipper(cfg, api, log, nil)
	if err != nil {
		return nil, err
	}
	if s.state.Namespace == "" {
		return s.run(ctx, progress), ctx.Err()
	}
	service := &inventory.Service{State: s.state, Log: log, Run: func(ctx context.Context, tell func(inventory.Progress)) *inventory.Report {
		return s.run(ctx, func(p inventory.Progress) {
			tell(p)
			if progress != nil {
				progress(p)
			}
		})
	}}
	return service.Once(ctx)
}

// InventoryTo makes one run into another contract than the configured one: it
// needs no endpoint, no credentials and nothing in the cluster but what is listed.
func InventoryTo(ctx context.Context, cfg *config.Config, api *rest.Config, log *slog.Logger, to inventory.Contract, progress func(inventory.Progress)) (*inventory.Report, error) {
	alone := *cfg
	alone.Inventory.State, alone.Inventory.Changes, alone.Inventory.Redaction.Secret = config.State{}, false, certs.SecretRef{}
	client, err := apiClient(api)
	if err != nil {
		return nil, err
	}
	s := &shipper{cfg: &alone, api: api, client: client, to: to, log: log}
	return s.run(ctx, progress), ctx.Err()
}

// shipper makes runs, one at a time.
type shipper struct {
	cfg     *config.Config
	api     *rest.Config
	client  kubernetes.Interface
	state   inventory.State
	to      inventory.Contract
	metrics *inventory.Metrics // nil: none
	log     *slog.Logger

	redactor *inventory.Redactor // of the run that goes on; nil without redaction
}

func newShipper(cfg *config.Config, api *rest.Config, log *slog.Logger, m *inventory.Metrics) (*shipper, error) {
	if err := cfg.Inventory.Readable(); err != nil {
		return nil, err
	}
	client, err := apiClient(api)
	if err != nil {
		return nil, err
	}
	i := cfg.Inventory
	s := &shipper{cfg: cfg, api: api, client: client, metrics: m, log: log, state: inventory.State{
		API: client, Namespace: i.State.Namespace, Lease: i.State.Lease, Report: i.State.Report, Index: i.State.Index,
	}}
	var o inventory.RunsOptions
	if i.HelmReleases {
		o.Releases = func(ctx context.Context) ([]json.RawMessage, error) {
			return inventory.HelmReleases(ctx, s.api, s.redactor)
		}
	}
	if s.to, err = endpoint.NewContract(&i, o, log); err != nil {
		return nil, err
	}
	return s, nil
}

// run makes a run, and blocks until it has ended. What keeps it from beginning is
// in its report too.
func (s *shipper) run(ctx context.Context, progress func(inventory.Progress)) *inventory.Report {
	began := time.Now()
	report, err := s.try(ctx, progress)
	if err != nil {
		report = &inventory.Report{
			Run: fmt.Sprintf("%024x", began.UnixNano()), ClusterID: s.cfg.ClusterID, Version: version.Version, Result: inventory.NotSent,
			Started: began, Ended: time.Now(), Error: err.Error(),
		}
		s.metrics.Ended(report)
	}
	return report
}

func (s *shipper) try(ctx context.Context, progress func(inventory.Progress)) (*inventory.Report, error) {
	i := s.cfg.Inventory
	var key []byte
	s.redactor = nil
	if i.Redaction.Mode != config.RedactionNone {
		var err error
		if key, err = redactionKey(ctx, s.client, i.Redaction); err != nil {
			return nil, err
		}
		s.redactor = inventory.NewRedactor(key)
	}
	own := rest.CopyConfig(s.api)
	own.QPS, own.Burst = apiRate, apiBurst
	own.WarningHandler = rest.NoWarnings{} // types that are deprecated are listed as long as they are there
	all, err := inventory.New(inventory.Options{
		API: own, ClusterID: s.cfg.ClusterID, Version: version.Version, Types: i.Resources,
		CustomResources: i.CustomResources, CustomResourceGroups: i.CustomResourceGroups,
		// The contract runs has a place of its own for them.
		HelmReleases: i.HelmReleases && i.Contract != config.ContractRuns,
		Redaction:    s.redactor, Metrics: s.metrics,
	})
	if err != nil {
		return nil, err
	}
	var index inventory.Index
	if i.Changes && s.state.Index != "" {
		ledger := inventory.NewLedger(s.state, inventory.LedgerOptions{CompleteEvery: i.CompleteEvery, Basis: basis(s.cfg, key), Log: s.log})
		index = butItself{ledger, s.state}
	}
	return all.Run(ctx, s.to, index, progress), nil
}

// butItself is an index that is not sent: large, and another after every run, it
// would be most of what has changed.
type butItself struct {
	inventory.Index

	state inventory.State
}

func (b butItself) Changed(t inventory.Type, id inventory.Identity) bool {
	if t.Name == "configmaps" && id.Namespace == b.state.Namespace && strings.HasPrefix(id.Name, b.state.Index+"-") {
		return false
	}
	return b.Index.Changed(t, id)
}
