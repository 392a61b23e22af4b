// Package migrate moves a release of a predecessor's chart to Metawire's: it looks
// at what there is, plans, and does it in an order that leaves nobody without
// service; what it did can be undone. What is known of the inventory's endpoints
// is passed in.
package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/metawire/metawire/migrate/release"
)

// Options say what is migrated, and how.
type Options struct {
	// Release and Namespace are of the old release; empty: all that there are.
	Release, Namespace string
	// ToRelease and ToNamespace are of the new one. Empty: metawire, in the
	// namespace of the old one.
	ToRelease, ToNamespace string
	// Values win over those that come from the old release.
	Values map[string]any
	// AllowUnknown goes on although a value of the old release is not known.
	AllowUnknown bool
	// KeepOld ends before the old release is removed.
	KeepOld bool
	// Backup is the file that the backup is written to. Empty: one in the working
	// directory that is named after the release.
	Backup string
	// Timeout bounds each step, default 5m.
	Timeout time.Duration
	// Endpoint asks an inventory's endpoint whether it takes these keys and, if it
	// says so, this cluster. Nil: it is not asked.
	Endpoint func(context.Context, Endpoint) error
	// Tell is told of each step as it begins and as it ends. Nil: nobody is.
	Tell func(Step)
}

const defaultTimeout = 5 * time.Minute

// Endpoint is where an inventory is sent to, and as whom.
type Endpoint struct {
	URL, LoginURL        string
	ClusterID            string
	ClusterUID           string // of the namespace kube-system
	AccessKey, SecretKey string
	// Open asks for a run, too: only then does the service say whether the cluster
	// id is another cluster's, unless Override takes it over.
	Open, Override bool
}

// Step is a step of a migration as it begins, or, with Took, as it has ended.
type Step struct {
	// Migration is the old release.
	Migration string
	Says      string
	Ended     bool
	Took      time.Duration
	// Found is what the step has to tell, a line each.
	Found []string
	Err   error
}

// Migrator migrates the releases of one cluster. It is used by one goroutine.
type Migrator struct {
	options Options
	config  *rest.Config
	api     kubernetes.Interface
	names   metadata.Interface
	objects *objects
	records *release.Records
}

// New returns the migrator of a cluster. It does not contact the API server.
func New(config *rest.Config, o Options) (*Migrator, error) {
	if driver := os.Getenv("HELM_DRIVER"); driver != "" && driver != "secret" && driver != "secrets" {
		return nil, fmt.Errorf("HELM_DRIVER is %q: only releases that Helm keeps in Secrets, its default, can be migrated", driver)
	}
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	if o.Tell == nil {
		o.Tell = func(Step) {}
	}
	m := &Migrator{options: o, config: config}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", config.Host, err)
	}
	m.api = api
	names, err1 := metadata.NewForConfig(config)
	client, err2 := dynamic.NewForConfig(config)
	records, err3 := release.NewRecords(config)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("client for %s: %w", config.Host, err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(api.Discovery()))
	m.names, m.objects, m.records = names, &objects{client, mapper}, records
	return m, nil
}

// new returns the release that a plan makes.
func (m *Migrator) release(n NewRelease) (*release.Release, error) {
	return release.New(m.config, n.Namespace, n.Name)
}

// step does something within a time, and tells of it.
func (m *Migrator) step(ctx context.Context, of OldRelease, limit time.Duration, says string, do func(context.Context) (found []string, err error)) error {
	m.options.Tell(Step{Migration: of.String(), Says: says})
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the time for it is over (--timeout %s)", limit))
	defer cancel()
	began := time.Now()
	found, err := do(ctx)
	m.options.Tell(Step{Migration: of.String(), Says: says, Ended: true, Took: time.Since(began), Found: found, Err: err})
	return err
}
