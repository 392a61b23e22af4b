// Package check holds the checks behind `metawire check`: one file a check, all
// of them in one table. They only read, but for pods that are created in a
// server-side dry run, of which nothing stays.
package check

import (
	"context"
	"errors"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/internal/installation"
)

// Outcome is what came of a check.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Warning Outcome = "warning" // works, and somebody should look at it
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped" // it needs something that was not found, or that the release is without
)

// Result is what a check found.
type Result struct {
	ID      string  `json:"id"`
	Group   string  `json:"group"`
	Check   string  `json:"check"` // what is right, as a statement
	Outcome Outcome `json:"outcome"`
	// Details say what was found, a line each; of a skipped check why.
	Details []string `json:"details,omitempty"`
	// Hint says what to do; whatever failed or is a warning has one.
	Hint string `json:"hint,omitempty"`
}

// Target is what is checked.
type Target struct {
	Config    *rest.Config
	Namespace string // of Metawire; empty: it is looked for
	Now       time.Time
	Version   string // of whoever checks; "dev" is of no release
	// Types are the resource types that the chart knows.
	Types []Type
	// Decode are the decoders of the daemons' configuration files, by component; one
	// that is not there takes every file.
	Decode map[string]func([]byte) error

	// What the first checks find out for those that follow.
	found  *installation.Installation
	config configuration
	// failed are the checks so far that did.
	failed []check
	// listed are the Falco pods, nil before a check needed them.
	listed []corev1.Pod
}

// Type is a resource type that the chart knows.
type Type struct {
	Group, Resource string
	Streamed        bool
}

// check is one row of the table.
type check struct {
	id, group, name string
	// needs says why the check cannot be made, "" if it can; nil: it needs nothing.
	needs func(*Target) string
	run   func(context.Context, *Target) finding
}

// patience bounds one check.
const patience = 30 * time.Second

// apiServerID is of the check without which there are no others.
const apiServerID = "api-server"

// groups of checks.
const (
	kubernetes   = "Kubernetes"
	metawire     = "Metawire"
	certificates = "Certificates"
	admission    = "Webhook"
	falcos       = "Falco"
	inventories  = "Inventory"
)

// installedChecks is the table, in the order in which they run.
func installedChecks() []check {
	return []check{
		{apiServerID, kubernetes, "the API server answers, and is of a version that is supported", nil, apiServer},
		{"own-rights", kubernetes, "you may read what is checked", nil, ownRights},
		{"release", metawire, "one release is installed", nil, installed},
		{"configuration", metawire, "the daemons' configuration is there, and they take it", released, configurations},
		{"accounts", metawire, "the daemons' ServiceAccounts are there, and their tokens are taken", released, accounts},
		{"permissions", metawire, "the daemons may read what is configured, and nothing else", released, permissions},
		{"collectors", metawire, "the collectors are ready", collects, collectors},
		{"webhooks", metawire, "the webhooks are ready", wires, webhooks},
		{"collector-service", metawire, "the collectors' Service leads to them", streams, collectorService},
		{"webhook-service", metawire, "the webhooks' Service leads to them", wires, webhookService},
		{"network-policies", metawire, "no NetworkPolicy keeps callers from the daemons", collects, networkPolicies},
		{"versions", metawire, "daemons, chart and this command are of one version", collects, versions},
		{"authorities", certificates, "the authorities are good, and where they should be", encrypted, authorities},
		{"tickets", certificates, "the key of the tickets is there", streams, tickets},
		{"collector-certificate", certificates, "the collectors serve a certificate that Falco takes", encrypted, collectorCertificate},
		{"webhook-certificate", certificates, "the webhooks serve a certificate that the API server takes", wires, webhookCertificate},
		{"registration", admission, "the API server is told to call the webhook for Falco pods", wires, registration},
		{"canary", admission, "a Falco pod is wired when it is made (dry run)", wires, canary},
		{"falco-pods", falcos, "every Falco pod is wired, or left alone on purpose", wires, falcoPods},
		{"subscribers", falcos, "every wired Falco subscribes, and none is refused", streams, subscribers},
		{"inventory", inventories, "the last run was complete", released, inventoryRuns},
	}
}

// Table returns the checks that Run makes, none of them made.
func Table() []Result { return rows(installedChecks()) }

// TablePre returns those that RunPre makes.
func TablePre() []Result { return rows(preChecks()) }

func rows(checks []check) (all []Result) {
	for _, c := range checks {
		all = append(all, Result{ID: c.id, Group: c.group, Check: c.name})
	}
	return all
}

// Run makes all checks and tells each result as it comes. It reports whether none
// failed. It blocks for as long as the API server and the daemons take, half a
// minute a check at most.
func Run(ctx context.Context, t *Target, tell func(Result)) bool {
	return run(ctx, t, installedChecks(), tell)
}

// RunPre makes those before an install.
func RunPre(ctx context.Context, t *Target, tell func(Result)) bool {
	return run(ctx, t, preChecks(), tell)
}

func run(ctx context.Context, t *Target, checks []check, tell func(Result)) bool {
	if t.Now.IsZero() {
		t.Now = time.Now()
	}
	t.Config = rest.CopyConfig(t.Config)
	t.Config.QPS = -1 // some ask a hundred times, once
	// Of all pods of a cluster a third as many bytes.
	t.Config.AcceptContentTypes, t.Config.ContentType = runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON, runtime.ContentTypeProtobuf
	t.failed, t.listed = nil, nil
	for _, c := range checks {
		r := Result{ID: c.id, Group: c.group, Check: c.name}
		f := c.make(ctx, t)
		if r.Outcome, r.Details, r.Hint = f.outcome, f.details, f.hint; f.outcome == Failed {
			t.failed = append(t.failed, c)
		}
		tell(r)
	}
	return len(t.failed) == 0
}

func (c check) make(ctx context.Context, t *Target) finding {
	if len(t.failed) > 0 && t.failed[0].id == apiServerID {
		return skip("the API server is needed for it")
	}
	if c.needs != nil {
		if why := c.needs(t); why != "" {
			return skip(why)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.run(ctx, t)
}

// finding is what a check found.
type finding struct {
	outcome Outcome
	details []string
	hint    string
}

func fine(details ...string) finding { return finding{OK, details, ""} }

func skip(why string) finding { return finding{Skipped, []string{why}, ""} }

// fail says what is wrong, and what to do.
func fail(hint string, details ...string) finding { return finding{Failed, details, hint} }

func warn(hint string, details ...string) finding { return finding{Warning, details, hint} }

// unread says that something could not be read: by somebody who may not, which is no
// fault of the installation.
func unread(err error, what string) finding {
	if apierrors.IsForbidden(err) {
		return skip(err.Error())
	}
	if apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		return fail("the API server is slow, or the way to it is: try again, from nearer by", err.Error())
	}
	return fail("you must be able to "+what, err.Error())
}

// What checks need.

func released(t *Target) string {
	if t.found == nil {
		return "no release was found"
	}
	return ""
}

func collects(t *Target) string {
	switch {
	case t.found == nil:
		return released(t)
	case t.found.Host == "":
		return "the release is a CronJob of the inventory alone"
	}
	return ""
}

func streams(t *Target) string {
	if why := collects(t); why != "" {
		return why
	}
	if !t.config.Stream.Enabled {
		return "the release has no stream (stream.enabled is false)"
	}
	return ""
}

func encrypted(t *Target) string {
	if why := streams(t); why != "" {
		return why
	}
	if !t.found.TLS {
		return "the stream is without TLS"
	}
	return ""
}

func wires(t *Target) string {
	if why := streams(t); why != "" {
		return why
	}
	if !t.config.Report.UnwiredPods {
		return "the release has no webhook (webhook.enabled is false)"
	}
	return ""
}
