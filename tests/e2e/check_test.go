package e2e_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/charts"
	collectorconfig "github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/internal/check"
	webhookconfig "github.com/metawire/metawire/webhook/config"
)

// breakage is one way to break an installation, and what metawire check must say
// of it.
type breakage struct {
	name string
	// breaks does it, and returns what mends it again, if that is not to be left.
	breaks func(*testing.T) (mend func())
	// hinted says that the command of the hint mends it, which is tried.
	hinted bool
	// within is how long it may take, default named.
	within time.Duration
	// id is the check that names the cause; none before it may fail.
	id      string
	outcome check.Outcome // Failed, if empty
	says    []string      // in its details or its hint
	// then are words of checks that follow from it, by their ids.
	then map[string]string
}

// named bounds how long the cause may take to be named, and to be gone again: what
// Kubernetes takes to notice, such as the kubelet's back-off.
const named = 90 * time.Second

// TestCheck breaks an installation in many ways, one after the other: metawire
// check must name the cause each time, before whatever follows from it, and be
// content again in the end.
func TestCheck(t *testing.T) {
	old := retagged(t, "0.0.1")
	w := newWorld(t, "check", 5, old)
	t.Cleanup(func() {
		if t.Failed() {
			w.dump(context.WithoutCancel(t.Context()), t.Output())
		}
	})
	if out, code := w.metawire(t, "check"); code != 2 || !strings.Contains(out, "no Metawire is installed") {
		t.Errorf("check of nothing ended with %d:\n%s", code, out)
	}
	if out, code := w.metawire(t, "check", "--pre"); code != 0 || !strings.Contains(out, "all ") {
		t.Errorf("check --pre ended with %d:\n%s", code, out)
	}
	w.createNamespace(t, namespace)
	w.createNamespace(t, falcos)
	b := &breakages{world: w}
	b.provided(t)
	b.content(t)
	if out, code := b.metawire(t, "check", "-n", falcos); code != 2 || !strings.Contains(out, "look there: metawire check -n "+namespace) {
		t.Errorf("check of another namespace ended with %d:\n%s", code, out)
	}
	b.reader(t)
	b.try(t, b.ofProvided())
	b.selfManaged(t)
	b.try(t, b.ofFalco())
	b.try(t, b.ofPermissions())
	b.try(t, b.ofNetwork())
	b.try(t, b.ofWebhook())
	b.try(t, b.ofInventory())
	b.try(t, b.ofCollector())
	b.content(t)
	if out, code := w.metawire(t, "check", "--pre"); code != 2 || !strings.Contains(out, "Deployment metawire-collector") {
		t.Errorf("check --pre beside a release ended with %d:\n%s", code, out)
	}
	b.try(t, b.ofNamespace())
}

// reader makes the checks as somebody who may view, and no more: what he may not is
// passed over, and nothing fails.
func (b *breakages) reader(t *testing.T) {
	t.Helper()
	mend := b.make(t, rbacOf+"/clusterrolebindings", `{"metadata": {"name": "reader"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
		"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}]}`)
	defer mend()
	config := rest.CopyConfig(b.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "reader"}
	eventually(t, soon, func(ctx context.Context) error {
		results := b.checkAs(ctx, t, config)
		for _, r := range results {
			if r.Outcome == check.Failed {
				return fmt.Errorf("to a reader this fails: %s", written([]check.Result{r}))
			}
		}
		if r := resultOf(results, "falco-pods"); r.Outcome == check.Failed || resultOf(results, "own-rights").Outcome != check.Warning {
			return fmt.Errorf("what he may not is not told:\n%s", written(results))
		}
		return nil
	})
}

// breakages are tried on one installation.
type breakages struct {
	*world

	with     map[string]any // the release's values
	falco    daemon
	ca       *x509.Certificate // the user's
	caKey    *ecdsa.PrivateKey
	endpoint *endpoint
}

// try breaks, waits until the cause is named, and mends.
func (b *breakages) try(t *testing.T, rows []breakage) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			began := time.Now()
			mend := row.breaks(t)
			var results []check.Result
			err := poll(t.Context(), cmp.Or(row.within, named), func(ctx context.Context) error {
				now := b.check(ctx, t)
				if ctx.Err() == nil { // else they tell of that
					results = now
				}
				return row.in(now)
			})
			if err != nil {
				t.Errorf("%v\n%s", err, written(results))
			}
			said := time.Since(began)
			if row.hinted {
				mend = func() { b.follow(t, resultOf(results, row.id).Hint) }
			}
			if mend != nil {
				mend()
				// Twice that: a volume's Secret may have to change twice.
				if err := poll(t.Context(), 2*named, func(ctx context.Context) error { return b.well(ctx, t, row.id) }); err != nil {
					t.Error(err)
				}
			}
			t.Logf("named after %.1f s, %.1f s in all:\n%s", said.Seconds(), time.Since(began).Seconds(), written([]check.Result{resultOf(results, row.id)}))
		})
	}
}

// follow runs the kubectl patch of a hint.
func (b *breakages) follow(t *testing.T, hint string) {
	t.Helper()
	m := regexp.MustCompile(`kubectl -n (\S+) patch service (\S+) --type=json -p '(.*)'$`).FindStringSubmatch(hint)
	if m == nil {
		t.Fatalf("%q is no command that patches a Service", hint)
	}
	b.patch(t, "/api/v1/namespaces/"+m[1]+"/services/"+m[2], types.JSONPatchType, m[3])
}

// well says what fails, and whether a check warns.
func (b *breakages) well(ctx context.Context, t *testing.T, id string) error {
	for _, r := range b.check(ctx, t) {
		if r.ID == "inventory" && b.endpoint != nil && !b.endpoint.up.Load() {
			continue // its turn comes; until then a run may give up
		}
		if r.Outcome == check.Failed || r.ID == id && r.Outcome == check.Warning {
			return fmt.Errorf("mended, and still: %s", written([]check.Result{r}))
		}
	}
	return nil
}

// in says what the results lack.
func (row *breakage) in(results []check.Result) error {
	want := row.outcome
	if want == "" {
		want = check.Failed
	}
	for _, r := range results {
		if r.ID != row.id {
			if r.Outcome == check.Failed {
				return fmt.Errorf("check %s fails before %s, which should name the cause", r.ID, row.id)
			}
			continue
		}
		if r.Outcome != want {
			return fmt.Errorf("check %s is %s, want %s", r.ID, r.Outcome, want)
		}
		if want != check.OK && r.Hint == "" {
			return fmt.Errorf("check %s does not say what to do", r.ID)
		}
		for _, s := range row.says {
			if !says(r, s) {
				return fmt.Errorf("check %s does not say %q", r.ID, s)
			}
		}
		for id, s := range row.then {
			if !says(resultOf(results, id), s) {
				return fmt.Errorf("check %s does not say %q", id, s)
			}
		}
		return nil
	}
	return fmt.Errorf("there is no check %s", row.id)
}

func says(r check.Result, words string) bool {
	return strings.Contains(strings.Join(append(r.Details, r.Hint), "\n"), words)
}

func resultOf(results []check.Result, id string) check.Result {
	i := slices.IndexFunc(results, func(r check.Result) bool { return r.ID == id })
	if i < 0 {
		return check.Result{}
	}
	return results[i]
}

func written(results []check.Result) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%-8s %s\n", r.Outcome, r.ID)
		for _, d := range r.Details {
			fmt.Fprintf(&b, "           %s\n", d)
		}
		if r.Hint != "" {
			fmt.Fprintf(&b, "         → %s\n", r.Hint)
		}
	}
	return b.String()
}

// check is metawire check without its process.
func (b *breakages) check(ctx context.Context, t *testing.T) (results []check.Result) {
	t.Helper()
	return b.checkAs(ctx, t, b.config)
}

// checkAs is check as somebody else.
func (b *breakages) checkAs(ctx context.Context, t *testing.T, config *rest.Config) (results []check.Result) {
	t.Helper()
	known, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	target := &check.Target{Config: config, Now: time.Now(), Version: "dev", Decode: map[string]func([]byte) error{
		"collector": func(file []byte) error { _, err := collectorconfig.Decode(file); return err },
		"webhook":   func(file []byte) error { _, err := webhookconfig.Decode(file); return err },
	}}
	for _, k := range known {
		target.Types = append(target.Types, check.Type{Group: k.Group, Resource: k.Resource, Streamed: k.Streamed})
	}
	check.Run(ctx, target, func(r check.Result) { results = append(results, r) })
	return results
}

// content waits until nothing fails and nothing is a warning, with the command
// itself.
func (b *breakages) content(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*named)
	defer cancel()
	out, code := b.command(ctx, t, "", "check", "--wait", named.String(), "-o", "json")
	end := strings.LastIndex(out, "]")
	var results []check.Result
	if err := json.Unmarshal([]byte(out[:end+1]), &results); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	warnings := slices.ContainsFunc(results, func(r check.Result) bool { return r.Outcome == check.Warning })
	if code != 0 || warnings || len(results) != len(check.Table()) {
		t.Fatalf("check ended with %d, want all %d checks good:\n%s", code, len(check.Table()), written(results))
	}
}

// change patches an object with a JSON merge patch, and returns what undoes it
// with another.
func (b *breakages) change(t *testing.T, path, patch, undo string) (mend func()) {
	t.Helper()
	b.patch(t, path, types.MergePatchType, patch)
	return func() { b.patch(t, path, types.MergePatchType, undo) }
}

func (b *breakages) patch(t *testing.T, path string, kind types.PatchType, patch string) {
	t.Helper()
	if err := b.api.CoreV1().RESTClient().Patch(kind).AbsPath(path).Body([]byte(patch)).Do(t.Context()).Error(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func (b *breakages) patchStatus(t *testing.T, path, patch string) {
	t.Helper()
	if err := b.api.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(path).SubResource("status").Body([]byte(patch)).Do(t.Context()).Error(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// take deletes an object, and returns what brings it back as it was.
func (b *breakages) take(t *testing.T, collection, name string) (mend func()) {
	t.Helper()
	client := b.api.CoreV1().RESTClient()
	path := collection + "/" + name
	raw, err := client.Get().AbsPath(path).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	meta, ok := object["metadata"].(map[string]any)
	if !ok {
		t.Fatalf("%s has no metadata", path)
	}
	for _, key := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields"} {
		delete(meta, key)
	}
	if raw, err = json.Marshal(object); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete().AbsPath(path).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	return func() { b.make(t, collection, string(raw)) }
}

// make creates an object, and returns what deletes it.
func (b *breakages) make(t *testing.T, collection, object string) (mend func()) {
	t.Helper()
	raw, err := b.api.CoreV1().RESTClient().Post().AbsPath(collection).Body([]byte(object)).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("%s: %v: %s", collection, err, raw)
	}
	var made metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &made); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := b.api.CoreV1().RESTClient().Delete().AbsPath(collection + "/" + made.Name).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
}
