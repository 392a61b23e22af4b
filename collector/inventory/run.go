package inventory

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

const (
	// defaultLimit is how many objects are asked for at once.
	defaultLimit = 500
	// maxOversized bounds the objects that a report names.
	maxOversized = 20
	// progressEvery is how often progress is told, in objects.
	progressEvery = 1000
)

// Options says what a run lists.
type Options struct {
	API       *rest.Config
	ClusterID string
	Version   string // of Metawire, for the report
	// Types are the names to list: resource.group, a resource of the core group, or
	// else that resource in every group.
	Types []string
	// CustomResources adds what CustomResourceDefinitions of the groups define; no
	// groups are all of them.
	CustomResources      bool
	CustomResourceGroups []string
	// HelmReleases adds Helm's releases as objects of kind HelmRelease, from the
	// Secrets that may be listed.
	HelmReleases bool
	// Redaction takes credentials out; nil sends objects as they are.
	Redaction *Redactor
	// Limit is how many objects are asked for at once, default 500.
	Limit   int64
	Metrics *Metrics // default none
}

// Index knows what was acknowledged before, so that a run sends what changed: a
// Ledger is one.
type Index interface {
	Begin(ctx context.Context) (complete bool, err error)
	Changed(t Type, id Identity) bool
	Sent(t Type, id Identity)
	Gone(t Type) []Identity
	// Names are of the types that it has objects of.
	Names() []string
	End(ctx context.Context, acknowledged bool) error
}

// Inventory makes runs, one at a time.
type Inventory struct {
	options   Options
	lister    *lister
	api       kubernetes.Interface
	discovery discovery.DiscoveryInterface
	metadata  metadata.Interface
}

// New returns an inventory; it asks the API server nothing yet.
func New(o Options) (*Inventory, error) {
	o.Limit = cmp.Or(o.Limit, defaultLimit)
	i := &Inventory{options: o}
	var err error
	if i.lister, err = newLister(o.API, o.Limit); err != nil {
		return nil, err
	}
	if i.api, err = kubernetes.NewForConfig(o.API); err != nil {
		return nil, fmt.Errorf("client for %s: %w", o.API.Host, err)
	}
	if i.metadata, err = metadata.NewForConfig(o.API); err != nil {
		return nil, fmt.Errorf("client for %s: %w", o.API.Host, err)
	}
	i.discovery = i.api.Discovery()
	return i, nil
}

// run is what goes on.
type run struct {
	*Inventory

	contract Contract
	index    Index // nil: everything is sent
	progress func(Progress)
	report   *Report
	now      Progress
	buffer   bytes.Buffer
	// everything is sent, whatever the index says.
	everything bool
	broken     error // the contract takes no more
}

// Run lists everything once and hands it to the contract. It blocks until that
// has ended it, or ctx ends, and always returns a report. Without an index
// everything is sent. The progress, if it is not nil, is told now and then.
func (i *Inventory) Run(ctx context.Context, c Contract, index Index, progress func(Progress)) *Report {
	r := &run{Inventory: i, contract: c, index: index, progress: progress, report: &Report{
		Run: newRunID(), ClusterID: i.options.ClusterID, Version: i.options.Version, Started: time.Now(), Result: NotSent,
	}}
	if i.options.Metrics != nil {
		i.options.Metrics.running.Set(1)
		defer i.options.Metrics.running.Set(0)
	}
	if err := r.make(ctx); err != nil {
		r.report.Error = err.Error()
		if errors.Is(err, ErrSkipped) {
			r.report.Result, r.report.TooEarly = Skipped, errors.Is(err, ErrTooEarly)
		}
	}
	r.report.Ended = time.Now()
	i.options.Metrics.Ended(r.report)
	return r.report
}

func newRunID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// make makes the run; the report says the rest.
func (r *run) make(ctx context.Context) error {
	var err error
	r.everything = true
	if r.index != nil {
		if r.everything, err = r.index.Begin(ctx); err != nil {
			return err
		}
	}
	types, err := r.find(ctx)
	if err != nil {
		return err
	}
	if w, ok := r.contract.(Waiter); ok && w.Waiting() > 0 {
		r.everything = true // what waits may be older than what the endpoint has
	}
	r.report.Changes = !r.everything
	this := Run{ID: r.report.Run, ClusterID: r.options.ClusterID, Started: r.report.Started, Changes: !r.everything}
	if this.ClusterUID, err = r.clusterUID(ctx); err != nil {
		r.note("the cluster's own id is not known: %v", err)
	}
	if this.ServerVersion, err = r.serverVersion(ctx); err != nil {
		r.note("the API server's version is not known: %v", err)
	}
	for _, f := range types {
		if f.outcome == OK {
			this.Types = append(this.Types, f.Type)
		}
	}
	if err := r.contract.Begin(ctx, this); err != nil {
		return err
	}
	complete := true
	for n, f := range types {
		r.now = Progress{Run: r.report.Run, Started: r.report.Started, Type: f.Name, Done: n, Types: len(types), Objects: r.now.Objects}
		r.tell()
		tr := r.one(ctx, f)
		r.report.Types = append(r.report.Types, tr)
		if tr.Outcome != OK && tr.Outcome != Absent {
			complete = false
		}
	}
	return r.end(ctx, complete)
}

// end closes the run, and keeps what was acknowledged.
func (r *run) end(ctx context.Context, complete bool) error {
	r.report.Result = Partial
	if complete {
		r.report.Result = Complete
	}
	err := errors.Join(ctx.Err(), r.contract.End(ctx, r.report))
	if err != nil {
		r.report.Result = NotSent
	}
	if r.index != nil {
		// Also of a run that failed: what is new may have arrived.
		if kept := r.index.End(context.WithoutCancel(ctx), err == nil && r.report.Sent.Spooled == 0); kept != nil {
			r.note("what was sent could not be kept, so the next run sends more than it needs: %v", kept)
		}
	}
	return err
}

func (r *run) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

func (r *run) tell() {
	if r.progress != nil {
		r.now.Updated = time.Now()
		r.progress(r.now)
	}
}

// find resolves what is configured.
func (r *run) find(ctx context.Context) ([]found, error) {
	served, err := discover(ctx, r.discovery)
	if err != nil {
		return nil, err
	}
	types := served.resolveAll(r.options.Types)
	if r.options.HelmReleases {
		types = append(types, found{Type: helmReleases(), outcome: OK})
	}
	if r.options.CustomResources {
		custom, others, err := served.custom(ctx, r.metadata, r.options.CustomResourceGroups, types)
		if err != nil {
			return append(types, unknownCustom(err)), nil
		}
		types = append(types, custom...)
		if len(others) > 0 {
			r.note("custom resources of groups that are not configured are not collected: %s", strings.Join(others, ", "))
		}
	}
	if r.index != nil {
		types = append(types, served.lost(r.index.Names(), types)...)
	}
	return types, nil
}

// clusterUID is that of namespace kube-system; it is listed, for that is what the
// role lets be done.
func (r *run) clusterUID(ctx context.Context) (string, error) {
	list, err := r.api.CoreV1().Namespaces().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + metav1.NamespaceSystem, Limit: 1})
	if err != nil {
		return "", err
	}
	if len(list.Items) == 0 {
		return "", fmt.Errorf("there is no namespace %s", metav1.NamespaceSystem)
	}
	return string(list.Items[0].UID), nil
}

func (r *run) serverVersion(ctx context.Context) (string, error) {
	version, err := discovery.ToDiscoveryInterfaceWithContext(r.discovery).ServerVersionWithContext(ctx)
	if err != nil {
		return "", err
	}
	return version.GitVersion, nil
}

// one lists a type. Whatever goes wrong, the others go on.
func (r *run) one(ctx context.Context, f found) (tr TypeReport) {
	began := time.Now()
	tr = TypeReport{Type: f.Type, Outcome: f.outcome, Error: f.err}
	defer func() {
		if p := recover(); p != nil {
			tr.Outcome, tr.Error = Failed, fmt.Sprintf("a bug in Metawire: %T", p)
			if bug, ok := p.(runtime.Error); ok { // of anything else nobody knows what it says
				tr.Error = "a bug in Metawire: " + bug.Error()
			}
		}
		tr.Took = time.Since(began)
	}()
	switch {
	case r.broken != nil:
		tr.Outcome, tr.Error = Failed, "it was not listed: the endpoint takes no more"
		return tr
	case ctx.Err() != nil:
		tr.Outcome, tr.Error = Failed, "it was not listed: the run was ended"
		return tr
	case f.outcome == Absent && r.index != nil:
		_ = r.gone(ctx, f.Type, &tr) // tr tells
		return tr
	case f.outcome != OK:
		return tr
	}
	err := r.list(ctx, f.Type, &tr)
	switch {
	case err == nil:
	case r.broken != nil:
		tr.Outcome, tr.Error = Failed, "it was not sent: the endpoint takes no more"
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		tr.Outcome, tr.Error = Forbidden, err.Error()
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		tr.Outcome, tr.Error = Absent, "the API server does not serve it any more"
	default:
		tr.Outcome, tr.Error = Failed, err.Error()
	}
	if err == nil && r.index != nil {
		err = r.gone(ctx, f.Type, &tr)
	}
	if err == nil && len(tr.Oversized) > 0 {
		tr.Outcome, tr.Error = Truncated, "objects that are larger than the limit were left out"
	}
	return tr
}

// list hands a type's objects to the contract.
func (r *run) list(ctx context.Context, t Type, tr *TypeReport) error {
	if t == helmReleases() {
		return r.releases(ctx, t, tr)
	}
	return r.lister.each(ctx, t, nil, func(o map[string]any) error {
		id := Identity{
			UID: text(o, "metadata", "uid"), APIVersion: t.APIVersion(), Kind: t.Kind,
			Namespace: text(o, "metadata", "namespace"), Name: text(o, "metadata", "name"),
			ResourceVersion: text(o, "metadata", "resourceVersion"),
		}
		return r.object(ctx, t, tr, id, func() any {
			if r.options.Redaction != nil {
				r.options.Redaction.Object(o)
			}
			return o
		})
	})
}

// object hands over one object, unless the endpoint has it.
func (r *run) object(ctx context.Context, t Type, tr *TypeReport, id Identity, content func() any) error {
	tr.Listed++
	if r.index != nil && !r.index.Changed(t, id) && !r.everything {
		return nil
	}
	body, err := encode(&r.buffer, content())
	if err != nil {
		return err
	}
	err = r.contract.Add(ctx, Object{Identity: id, JSON: body})
	switch {
	case errors.Is(err, ErrTooLarge):
		if len(tr.Oversized) < maxOversized {
			tr.Oversized = append(tr.Oversized, id.Namespace+"/"+id.Name)
		}
		return nil
	case err != nil:
		r.broken = err
		return err
	}
	tr.Sent++
	tr.Bytes += int64(len(body))
	if r.index != nil {
		r.index.Sent(t, id)
	}
	if r.now.Objects++; r.now.Objects%progressEvery == 0 {
		r.tell()
	}
	return nil
}

// gone tells of what the endpoint has and the API server has no more.
func (r *run) gone(ctx context.Context, t Type, tr *TypeReport) error {
	for _, id := range r.index.Gone(t) {
		if err := r.contract.Delete(ctx, id); err != nil {
			r.broken = err
			tr.Outcome, tr.Error = Failed, "its deletions were not sent: "+err.Error()
			return err
		}
		tr.Deleted++
	}
	return nil
}
