// Package inventory ships the objects of the configured resource types to an
// HTTP endpoint: listed in pages, redacted, packed, and sent until they are
// acknowledged or reported as missing. It holds neither a type nor a page whole
// in memory longer than it takes, and watches nothing.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Type is a resource type.
type Type struct {
	// Name is as the configuration writes it: resource.group, the resource alone
	// in the core group.
	Name string `json:"name"`
	// What the API server serves it as, at its preferred version; empty if it
	// does not.
	Group      string `json:"group,omitempty"`
	Version    string `json:"version,omitempty"`
	Resource   string `json:"resource,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Namespaced bool   `json:"namespaced,omitempty"`
}

// APIVersion is group/version, or the version alone in the core group.
func (t Type) APIVersion() string {
	if t.Group == "" {
		return t.Version
	}
	return t.Group + "/" + t.Version
}

// Identity is what tells an object from others, and a version of it from
// another.
type Identity struct {
	UID             string `json:"uid"`
	APIVersion      string `json:"apiVersion"`
	Kind            string `json:"kind"`
	Namespace       string `json:"namespace,omitempty"`
	Name            string `json:"name"`
	ResourceVersion string `json:"-"`
}

// Object is one object, redacted.
type Object struct {
	Identity

	// JSON is the object as it is sent. It is valid until the function that was
	// called with it returns.
	JSON []byte
}

// Page is a part of what is sent, made once: every attempt sends the same bytes.
type Page struct {
	Run    string // the run's ID
	Number int    // from 1
	Last   bool   // no page of the run follows
	// Key is the same at every attempt, and another for every page
	// (Idempotency-Key).
	Key string
	// Path is below the endpoint, with its query; empty is the endpoint itself.
	Path string
	// Body is as it is sent; Gzip says that it is compressed.
	Body []byte
	Gzip bool
	// Objects and Bytes are how many it holds, and their JSON.
	Objects int
	Bytes   int64
}

// Contract is how an endpoint takes a run. Its methods are called by one
// goroutine, in order: Begin, Add for every object, Delete for what is gone, End.
type Contract interface {
	// Begin opens a run. An error that wraps ErrSkipped says that the endpoint
	// does not want it now.
	Begin(ctx context.Context, run Run) error
	// Add packs an object into a page, and sends or spools pages that are full.
	// ErrTooLarge is of an object that is larger than the limit: it is left out.
	// After any other error the run cannot be sent, and End says so again.
	Add(ctx context.Context, o Object) error
	// Delete tells of an object that is gone.
	Delete(ctx context.Context, gone Identity) error
	// End sends what is left and closes the run if the contract says so. It is
	// called whenever Begin returned nil. r.Result is what came of the types:
	// unless it is Complete, the endpoint is told that something is missing, or
	// the run is left open. End fills r.Sent, adds to r.Notes, and turns Complete
	// into Partial if pages wait on disk. It returns when all pages were
	// acknowledged or spooled, or with what was not: then the run is NotSent.
	End(ctx context.Context, r *Report) error
}

// Sent is what a Contract did: the report takes it in. But for Retries and
// Spooled it counts what was acknowledged.
type Sent struct {
	Pages   int   `json:"pages"`
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"` // of JSON
	Wire    int64 `json:"wire"`  // of bodies as they were sent, once each
	Retries int   `json:"retries"`
	Spooled int   `json:"spooled"` // pages that wait on disk for the next run
}

// The errors of contracts.
var (
	ErrSkipped = errors.New("the endpoint does not want a run now")
	// ErrTooEarly wraps ErrSkipped: the endpoint only puts the run off.
	ErrTooEarly = fmt.Errorf("%w: it is too early for another run", ErrSkipped)
	ErrTooLarge = errors.New("the object is larger than the limit")
)

// Run is one run.
type Run struct {
	ID         string // 24 hexadecimal digits
	ClusterID  string
	ClusterUID string // of namespace kube-system
	Started    time.Time
	Types      []Type // that will be listed
	Changes    bool   // only what changed is sent
	// ServerVersion is Kubernetes', as v1.35.0; empty if it is not known.
	ServerVersion string
}

// Outcome is what came of a type.
type Outcome string

// The outcomes.
const (
	OK        Outcome = "ok"
	Forbidden Outcome = "forbidden" // the role does not let it be listed
	Absent    Outcome = "absent"    // the API server does not serve it
	Failed    Outcome = "failed"
	Truncated Outcome = "truncated" // some objects of it were not sent
)

// TypeReport is what came of a type in a run.
type TypeReport struct {
	Type

	Outcome Outcome `json:"outcome"`
	Listed  int     `json:"listed"`  // objects that the API server returned
	Sent    int     `json:"sent"`    // of them, those that were handed to the contract
	Deleted int     `json:"deleted"` // that were told to be gone
	Bytes   int64   `json:"bytes"`   // of JSON that was sent
	// Oversized names objects that are larger than the limit, some of very many.
	Oversized []string      `json:"oversized,omitempty"`
	Took      time.Duration `json:"took"`
	Error     string        `json:"error,omitempty"` // one sentence
}

// Result is what came of a run.
type Result string

// The results.
const (
	Complete Result = "complete" // every type that is served was sent, whole
	Partial  Result = "partial"  // what was sent was acknowledged, but some is missing
	NotSent  Result = "failed"
	Skipped  Result = "skipped" // the endpoint did not want it
)

// Report is what came of a run: on the log, in a ConfigMap, on the command line.
type Report struct {
	Run       string       `json:"run"`
	ClusterID string       `json:"clusterID"`
	Version   string       `json:"version"` // of Metawire
	Result    Result       `json:"result"`
	TooEarly  bool         `json:"tooEarly,omitempty"` // Skipped, and only put off
	Changes   bool         `json:"changes"`            // only what changed was sent
	Started   time.Time    `json:"started"`
	Ended     time.Time    `json:"ended"`
	Sent      Sent         `json:"sent"`
	Types     []TypeReport `json:"types"`
	Releases  int          `json:"helmReleases,omitempty"`
	Notes     []string     `json:"notes,omitempty"`
	Error     string       `json:"error,omitempty"` // one sentence
}
