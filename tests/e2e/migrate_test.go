package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/action"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/collector/inventory/receiver"
	"github.com/metawire/metawire/migrate"
	"github.com/metawire/metawire/tests/e2e/release"
	"github.com/metawire/metawire/tests/falco/plugin"
	"github.com/metawire/metawire/tests/oldcharts"
	oldimage "github.com/metawire/metawire/tests/oldcharts/image"
)

// migrated bounds a migration: backup, install, tests, hand-over, removal.
const migrated = 5 * time.Minute

// TestMigrate moves releases of the old charts, which run, over to ours, with the
// command line.
func TestMigrate(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "old.tar")
	if err := oldimage.Build(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "migrate", 4, archive)
	w.createNamespace(t, falcos)
	part := func(name string, test func(*testing.T, *world)) {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					w.dump(context.WithoutCancel(t.Context()), t.Output())
				}
			})
			test(t, w)
		})
	}
	part("k8s-metacollector", testMigrateMetacollector)
	part("to another namespace", testMigrateElsewhere)
	part("firefly-k8s-collector", testMigrateFirefly)
	part("infralight-k8s-collector", testMigrateInfralight)
	part("by hand", testMigrateByHand)
	part("failures", testMigrateFailures)
	part("killed", testMigrateKilled)
}

func (w *world) createNamespace(t *testing.T, name string) {
	t.Helper()
	_, err := w.api.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	eventually(t, soon, func(ctx context.Context) error { // which makes a namespace usable
		_, err := w.api.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// helmIn is Helm in a namespace.
func (w *world) helmIn(t *testing.T, ns string) *action.Configuration {
	t.Helper()
	c, err := oldcharts.Helm(w.cluster.Kubeconfig(), w.temp, ns)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// installOld installs an old chart as its users do, hooks and all.
func (w *world) installOld(t *testing.T, chart, release, ns string, values map[string]any) {
	t.Helper()
	if err := oldcharts.Install(t.Context(), w.helmIn(t, ns), chart, release, ns, values, true, true); err != nil {
		t.Fatal(err)
	}
}

// oldStream are the values of an old collector that runs here, at once.
func oldStream() map[string]any {
	soon := map[string]any{"initialDelaySeconds": 0, "periodSeconds": 1}
	return map[string]any{
		"image":        map[string]any{"pullPolicy": "Never"},
		"healthChecks": map[string]any{"readinessProbe": soon, "livenessProbe": soon},
	}
}

// migration runs metawire migrate to its end, with the image that was built.
func (w *world) migration(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), migrated)
	defer cancel()
	return w.command(ctx, t, "", w.migrateArgs(t, args...)...)
}

// migrateArgs are of metawire migrate, whose backups go where the test's files do.
func (w *world) migrateArgs(t *testing.T, args ...string) []string {
	t.Helper()
	if slices.Contains(args, "--finish") || slices.Contains(args, "--rollback") {
		return append([]string{"migrate"}, args...)
	}
	return append([]string{
		"migrate", "--backup", filepath.Join(t.TempDir(), "backup.json"),
		"--set", "image.repository=" + w.image.Repository + ",image.tag=" + w.image.Tag + ",image.pullPolicy=Never",
	}, args...)
}

// mustMigrate is migration, or the end of the test.
func (w *world) mustMigrate(t *testing.T, args ...string) string {
	t.Helper()
	out, code := w.migration(t, append([]string{"--yes"}, args...)...)
	if code != 0 {
		t.Fatalf("metawire migrate %v ended with %d:\n%s", args, code, out)
	}
	return out
}

// fingerprint is what a release has in the cluster, and Helm's record of it.
func (w *world) fingerprint(t *testing.T, ns, release string) string {
	t.Helper()
	got, err := action.NewGet(w.helmIn(t, ns)).Run(release)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("revision %d, %s", got.Version, got.Info.Status)
}

// gaps are the times that a Falco was without a stream, the longest first.
func gaps(s plugin.State) []time.Duration {
	var all []time.Duration
	for i, end := range s.Ends {
		if i > 0 && end.At.Sub(s.Attempts[i]) < time.Second {
			continue // of a try that failed: a part of the gap before
		}
		back := time.Now()
		for j, at := range s.Attempts {
			failed := j < len(s.Ends) && s.Ends[j].At.Sub(at) < time.Second
			if at.After(end.At) && !failed {
				back = at
				break
			}
		}
		all = append(all, back.Sub(end.At))
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all
}

// followed checks that a Falco went over from one collector to another, and says
// how long it was without.
func (w *world) followed(t *testing.T, what string, d daemon, pod corev1.Pod, ends int) plugin.State {
	t.Helper()
	eventually(t, started, func(ctx context.Context) error { // collectors of ours drain for up to 25 s
		s, err := d.state(ctx, pod)
		if err == nil && len(s.Ends) <= ends {
			err = errors.New("Falco's stream did not end: it was not connected to what went")
		}
		return err
	})
	s := w.exactly(t, d, pod)
	longest := time.Duration(0)
	if g := gaps(s); len(g) > 0 {
		longest = g[0]
	}
	t.Logf("%s: Falco was without a stream for %s at the longest (streams ended: %s)", what, longest.Round(10*time.Millisecond), ended(s))
	// The plugin's own delays: 2 s, then 4 s if the first try comes too early.
	if limit := 10 * time.Second; longest > limit {
		t.Errorf("%s: Falco was without a stream for %s, want %s at most", what, longest, limit)
	}
	return s
}

// testMigrateMetacollector: a Falco that is configured for the old collector by
// hand gets its metadata all the way, there and back.
func testMigrateMetacollector(t *testing.T, w *world) {
	const old = "k8s-metacollector"
	w.installOld(t, oldcharts.Metacollector, old, falcos, oldStream())
	d := daemon{name: "legacy", config: byHand(old+"."+falcos+".svc", 45000, "${FALCO_K8S_NODE_NAME}", "")}
	pod := w.start(t, d)
	w.exactly(t, d, pod)

	out, code := w.migration(t, "--dry-run", "-o", "json")
	var survey migrate.Survey
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&survey); err != nil || code != 2 || len(survey.Plans) != 1 {
		t.Fatalf("a dry run ended with %d, want 2 and one plan: %v\n%s", code, err, out)
	}
	if p := survey.Plans[0]; len(p.Problems) > 0 || p.Old.Name != old || p.New.Namespace != falcos || p.New.Name != "metawire" {
		t.Errorf("want metawire in %s, without problems: %+v", falcos, p)
	}
	if secrets, err := w.api.CoreV1().Secrets(falcos).List(t.Context(), metav1.ListOptions{LabelSelector: "metawire.dev/migration"}); err != nil || len(secrets.Items) > 0 {
		t.Errorf("a dry run has left something: %v, %v", secrets, err)
	}

	out = w.mustMigrate(t)
	t.Log(out)
	s := w.followed(t, "over", d, pod, 0)
	w.gone(t, falcos, old, "Deployment", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")
	service, err := w.api.CoreV1().Services(falcos).Get(t.Context(), old, metav1.GetOptions{})
	if err != nil || service.Labels["metawire.dev/legacy"] != old || service.Annotations["meta.helm.sh/release-name"] != "" {
		t.Errorf("want the old Service, of no release: %v, %v", service.ObjectMeta, err)
	}
	if out, code := w.migration(t); code != 0 || !strings.Contains(out, "There is nothing to migrate") || !strings.Contains(out, old) {
		t.Errorf("a second run ended with %d, want 0, nothing to do, and the old Service:\n%s", code, out)
	}
	if out, code := w.migration(t, "--finish"); code != 1 || !strings.Contains(out, "1 subscribers still come") {
		t.Errorf("the old Service is used: --finish ended with %d, want 1:\n%s", code, out)
	}

	if out, code := w.migration(t, "--rollback", "--yes"); code != 0 {
		t.Fatalf("--rollback ended with %d:\n%s", code, out)
	}
	if got := w.fingerprint(t, falcos, old); got != "revision 1, deployed" {
		t.Errorf("after --rollback the old release is %s", got)
	}
	w.followed(t, "back", d, pod, len(s.Ends))
	w.nothingOf(t, falcos, "metawire")

	w.mustMigrate(t)
	w.remove(t, d)
	if out, code := w.migration(t, "--finish"); code != 0 {
		t.Fatalf("nobody uses the old Service: --finish ended with %d:\n%s", code, out)
	}
	w.gone(t, falcos, old, "Service")
	w.uninstall(t, falcos, "metawire")
}

// testMigrateElsewhere: the new release is in another namespace, and the old
// Service a name for one there.
func testMigrateElsewhere(t *testing.T, w *world) {
	const old, to = "collector", "elsewhere"
	w.installOld(t, oldcharts.Metacollector, old, falcos, oldStream())
	service := old + "-k8s-metacollector"
	d := daemon{name: "legacy", config: byHand(service+"."+falcos+".svc", 45000, "${FALCO_K8S_NODE_NAME}", "")}
	pod := w.start(t, d)
	w.exactly(t, d, pod)
	out := w.mustMigrate(t, "--release", old, "--to-namespace", to, "--set", "collector.replicas=1")
	t.Log(out)
	s := w.followed(t, "over, by a name", d, pod, 0)
	if out, code := w.migration(t, "--rollback", "--yes", "--release", old); code != 0 {
		t.Fatalf("--rollback ended with %d:\n%s", code, out)
	}
	w.followed(t, "back, from a name", d, pod, len(s.Ends))
	w.nothingOf(t, to, "metawire")
	w.mustMigrate(t, "--release", old, "--to-namespace", to, "--set", "collector.replicas=1")
	w.gone(t, falcos, service, "Deployment", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")
	w.remove(t, d)
	if out, code := w.migration(t, "--finish", "--release", old); code != 0 {
		t.Fatalf("--finish ended with %d:\n%s", code, out)
	}
	w.gone(t, falcos, service, "Service")
	w.uninstall(t, to, "metawire")
	w.nothingOf(t, to, "metawire")
	if list, err := w.api.CoreV1().Services(to).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
		t.Errorf("Services are left: %v, %v", list, err)
	}
}

// service stands in for Firefly's: it takes runs, and remembers who was signed on
// and off.
type fireflyService struct {
	*receiver.Receiver

	broken atomic.Bool // it takes no objects

	mu     sync.Mutex
	boards []string
}

func (s *fireflyService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.broken.Load() && strings.HasSuffix(r.URL.Path, "/fetching/objects"):
		http.Error(w, "no objects today", http.StatusBadRequest)
		return
	case r.URL.Path != "/on" && r.URL.Path != "/off":
		s.Receiver.ServeHTTP(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boards = append(s.boards, r.URL.Path)
}

// closed are the runs that were closed.
func (s *fireflyService) closed() int {
	n := 0
	for _, r := range s.Kept().Runs {
		if r.Closed {
			n++
		}
	}
	return n
}

const (
	fireflyKey    = "canary-access-key"
	fireflySecret = "canary-secret-key"
)

// oldInventory are the values of an old inventory that runs here.
func oldInventory(url string) map[string]any {
	return map[string]any{
		"clusterId": "e2e", "schedule": "0 0 1 1 *", "accessKey": fireflyKey, "secretKey": fireflySecret,
		"apiEndpoint": url, "loginEndpoint": url, "appApiEndpoint": url,
		"image": map[string]any{"pullPolicy": "Never"}, "offBoarderImage": map[string]any{"pullPolicy": "Never"},
		"resources": map[string]any{"requests": map[string]any{"cpu": "10m", "memory": "32Mi"}},
	}
}

// testMigrateFirefly: a run that goes on is waited for, what was edited counts, the
// cluster stays signed on, and the way back is there.
func testMigrateFirefly(t *testing.T, w *world) {
	const ns, old = "firefly", "firefly"
	w.createNamespace(t, ns)
	endpoint := &fireflyService{Receiver: receiver.New(receiver.Options{AccessKey: fireflyKey, SecretKey: fireflySecret})}
	url := w.serve(t, endpoint)
	values := oldInventory(url)
	values["addTypes"] = []any{"secrets"}
	w.installOld(t, oldcharts.Firefly, old, ns, values)
	edit := []byte(`{"data": {"collector.resources": "pods\ndeployments\nnamespaces\nsecrets\n", "stand-in.duration": "25s"}}`)
	if _, err := w.api.CoreV1().ConfigMaps(ns).Patch(t.Context(), old+"-config", types.MergePatchType, edit, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.runNow(t, ns, old+"-cronjob", true)

	// The key that only the test knows of is unknown, and has to be allowed.
	out, code := w.migration(t, "--dry-run")
	if code != 1 || !strings.Contains(out, "configmap: stand-in.duration") {
		t.Errorf("an unknown key: ended with %d, want 1 and its name:\n%s", code, out)
	}
	w.failing(t, ns, old, "✗ wait for the Job of it that runs", "--allow-unknown", "--timeout", "5s")
	out = w.mustMigrate(t, "--allow-unknown")
	t.Log(out)
	for _, secret := range []string{fireflyKey, fireflySecret} {
		if strings.Contains(out, secret) {
			t.Errorf("%s is shown", secret)
		}
	}
	if strings.Contains(out, "✓ wait for the Job of it that runs (0s)") {
		t.Error("the old run was not waited for")
	}
	if n := endpoint.closed(); n != 2 {
		t.Errorf("%d runs were closed, want the old one and one of the new: %+v", n, endpoint.Kept().Runs)
	}
	if kept := endpoint.Kept(); len(kept.Objects) == 0 || kept.Refused > 0 {
		t.Errorf("%d objects have arrived, %d requests were refused", len(kept.Objects), kept.Refused)
	}
	if !slices.Equal(endpoint.boards, []string{"/on"}) {
		t.Errorf("the cluster was signed %v, want on, and never off", endpoint.boards)
	}
	w.gone(t, ns, old+"-cronjob", "CronJob")
	w.gone(t, ns, old+"-config", "ConfigMap")
	w.gone(t, ns, old+"-credentials", "Secret")
	w.gone(t, ns, "infralight-service-account", "ServiceAccount")
	w.gone(t, ns, "infralight-role", "ClusterRole")
	w.gone(t, ns, "infralight-role-binding", "ClusterRoleBinding")
	got, err := action.NewGetValues(w.helmIn(t, ns)).Run("metawire")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(got) //nolint:errchkjson // values come from JSON
	for _, want := range []string{`"clusterID":"e2e"`, `"mode":"CronJob"`, `"addTypes":["secrets"]`, `"helmReleases":true`, `"schedule":"0 0 1 1 *"`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the new release's values lack %s: %s", want, text)
		}
	}
	if out, code := w.migration(t, "--rollback", "--yes"); code != 0 {
		t.Fatalf("--rollback ended with %d:\n%s", code, out)
	}
	if got := w.fingerprint(t, ns, old); got != "revision 1, deployed" {
		t.Errorf("after --rollback the old release is %s", got)
	}
	c, err := w.api.BatchV1().CronJobs(ns).Get(t.Context(), old+"-cronjob", metav1.GetOptions{})
	if err != nil || c.Spec.Suspend != nil && *c.Spec.Suspend {
		t.Errorf("after --rollback the old CronJob is suspended, or gone: %v", err)
	}
	endpoint.broken.Store(true)
	w.failing(t, ns, old, "✗ send the inventory once", "--allow-unknown")
	endpoint.broken.Store(false)
	w.runNow(t, ns, old+"-cronjob", false)
	eventually(t, started, func(context.Context) error {
		if n := endpoint.closed(); n != 3 {
			return fmt.Errorf("%d runs were closed, want one of the old program more", n)
		}
		return nil
	})
	w.nothingOf(t, ns, "metawire")
	w.uninstallOld(t, ns, old)
}

// failing runs a migration that fails at a step, and checks that all is as it was.
func (w *world) failing(t *testing.T, ns, old, step string, args ...string) {
	t.Helper()
	out, code := w.migration(t, append([]string{"--yes"}, args...)...)
	if code != 1 || !strings.Contains(out, step) || !strings.Contains(out, "all is as it was") {
		t.Fatalf("ended with %d, want 1, %q, and that all is as it was:\n%s", code, step, out)
	}
	if got := w.fingerprint(t, ns, old); got != "revision 1, deployed" {
		t.Errorf("the old release is %s", got)
	}
	if c, err := w.api.BatchV1().CronJobs(ns).Get(t.Context(), old+"-cronjob", metav1.GetOptions{}); err != nil || c.Spec.Suspend != nil && *c.Spec.Suspend {
		t.Errorf("the old CronJob is suspended, or gone: %v", err)
	}
	w.nothingOf(t, ns, "metawire")
	if secrets, err := w.api.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "metawire.dev/migration"}); err != nil || len(secrets.Items) > 0 {
		t.Errorf("Secrets of the migration are left: %v, %v", secrets, err)
	}
}

// runNow makes a Job of a CronJob, as its schedule would; with wait, it returns
// once its pod runs.
func (w *world) runNow(t *testing.T, ns, cronJob string, wait bool) {
	t.Helper()
	c, err := w.api.BatchV1().CronJobs(ns).Get(t.Context(), cronJob, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	job, err := w.api.BatchV1().Jobs(ns).Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{GenerateName: cronJob + "-", OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(c, batchv1.SchemeGroupVersion.WithKind("CronJob")),
		}},
		Spec: c.Spec.JobTemplate.Spec,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if wait {
		eventually(t, started, func(ctx context.Context) error {
			j, err := w.api.BatchV1().Jobs(ns).Get(ctx, job.Name, metav1.GetOptions{})
			if err == nil && (j.Status.Ready == nil || *j.Status.Ready == 0) && j.Status.Succeeded == 0 {
				err = fmt.Errorf("Job %s does not run: %+v", job.Name, j.Status)
			}
			return err
		})
	}
}

// testMigrateInfralight: the older chart, with the same names for the whole
// cluster.
func testMigrateInfralight(t *testing.T, w *world) {
	const ns, old = "firefly", "infralight"
	w.createNamespace(t, ns)
	endpoint := &fireflyService{Receiver: receiver.New(receiver.Options{AccessKey: fireflyKey, SecretKey: fireflySecret})}
	url := w.serve(t, endpoint)
	values := oldInventory(url)
	for _, key := range []string{"loginEndpoint", "appApiEndpoint", "offBoarderImage"} {
		delete(values, key)
	}
	w.installOld(t, oldcharts.Infralight, old, ns, values)
	// It logs in where the program has it; here that is the endpoint.
	out := w.mustMigrate(t, "--set", "inventory.loginEndpoint="+url)
	t.Log(out)
	if n := endpoint.closed(); n != 1 {
		t.Errorf("%d runs were closed, want one: %+v", n, endpoint.Kept().Runs)
	}
	w.gone(t, ns, old+"-cronjob", "CronJob")
	w.gone(t, ns, "infralight-role", "ClusterRole")
	if out, code := w.migration(t); code != 0 || !strings.Contains(out, "There is nothing to migrate") {
		t.Errorf("a second run ended with %d:\n%s", code, out)
	}
	w.uninstall(t, ns, "metawire")
}

// testMigrateByHand does what docs/migrate.md says of an inventory, with the values
// that stand there.
func testMigrateByHand(t *testing.T, w *world) {
	const ns, old = "firefly", "firefly"
	w.createNamespace(t, ns)
	endpoint := &fireflyService{Receiver: receiver.New(receiver.Options{AccessKey: fireflyKey, SecretKey: fireflySecret})}
	url := w.serve(t, endpoint)
	w.installOld(t, oldcharts.Firefly, old, ns, oldInventory(url))
	doc, err := os.ReadFile("../../docs/migrate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "cat > values.yaml <<'END'\n")
	text, _, found := strings.Cut(text, "END\n")
	if !found {
		t.Fatal("docs/migrate.md has no values.yaml")
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	inventory := values["inventory"].(map[string]any) //nolint:errcheck // as it stands there
	inventory["endpoint"], inventory["loginEndpoint"], inventory["insecure"] = url, url, true
	values["image"], values["clusterID"] = w.image.Values("Never"), "e2e"

	pause := []byte(`{"spec":{"suspend":true}}`)
	if _, err := w.api.BatchV1().CronJobs(ns).Patch(t.Context(), old+"-cronjob", types.StrategicMergePatchType, pause, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	secret, err := w.api.CoreV1().Secrets(ns).Get(t.Context(), old+"-credentials", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	copied := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "metawire-endpoint-credentials", Namespace: ns}, Type: secret.Type, Data: secret.Data}
	if _, err := w.api.CoreV1().Secrets(ns).Create(t.Context(), copied, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ours, err := release.New(w.cluster.Kubeconfig(), w.temp, ns, "metawire")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Install(t.Context(), values, nil, started); err != nil {
		t.Fatal(err)
	}
	w.runNow(t, ns, "metawire-inventory", false)
	eventually(t, started, func(context.Context) error {
		if n := endpoint.closed(); n != 1 {
			return fmt.Errorf("%d runs were closed, want one", n)
		}
		return nil
	})
	w.uninstallOld(t, ns, old)
	if !slices.Equal(endpoint.boards, []string{"/on"}) {
		t.Errorf("the cluster was signed %v, want on, and never off", endpoint.boards)
	}
	w.gone(t, ns, old+"-credentials", "Secret")
	if err := w.api.CoreV1().Secrets(ns).Delete(t.Context(), copied.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.uninstall(t, ns, "metawire")
}

// uninstallOld is helm uninstall --no-hooks.
func (w *world) uninstallOld(t *testing.T, ns, old string) {
	t.Helper()
	u := action.NewUninstall(w.helmIn(t, ns))
	u.DisableHooks, u.Wait, u.Timeout = true, true, started
	if _, err := u.Run(old); err != nil {
		t.Fatal(err)
	}
}

// gone checks that objects of a name are not there any more.
func (w *world) gone(t *testing.T, ns, name string, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		var err error
		switch kind {
		case "Deployment":
			_, err = w.api.AppsV1().Deployments(ns).Get(t.Context(), name, metav1.GetOptions{})
		case "CronJob":
			_, err = w.api.BatchV1().CronJobs(ns).Get(t.Context(), name, metav1.GetOptions{})
		case "ConfigMap":
			_, err = w.api.CoreV1().ConfigMaps(ns).Get(t.Context(), name, metav1.GetOptions{})
		case "Secret":
			_, err = w.api.CoreV1().Secrets(ns).Get(t.Context(), name, metav1.GetOptions{})
		case "Service":
			_, err = w.api.CoreV1().Services(ns).Get(t.Context(), name, metav1.GetOptions{})
		case "ServiceAccount":
			_, err = w.api.CoreV1().ServiceAccounts(ns).Get(t.Context(), name, metav1.GetOptions{})
		case "ClusterRole":
			_, err = w.api.RbacV1().ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		case "ClusterRoleBinding":
			_, err = w.api.RbacV1().ClusterRoleBindings().Get(t.Context(), name, metav1.GetOptions{})
		default:
			t.Fatalf("the test knows no %s", kind)
		}
		if !apierrors.IsNotFound(err) {
			t.Errorf("%s %s is still there: %v", kind, name, err)
		}
	}
}

// nothingOf checks that a release of ours has left nothing.
func (w *world) nothingOf(t *testing.T, ns, release string) {
	t.Helper()
	if got := w.fingerprint(t, ns, release); !strings.Contains(got, "not found") {
		t.Errorf("release %s/%s is %s", ns, release, got)
	}
	of := metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=metawire,app.kubernetes.io/instance=" + release}
	roles, err := w.api.RbacV1().ClusterRoles().List(t.Context(), of)
	if err != nil || len(roles.Items) > 0 {
		t.Errorf("ClusterRoles are left: %v, %v", roles, err)
	}
	eventually(t, started, func(ctx context.Context) error {
		pods, err := w.api.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + release})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("pod %s is left", pods.Items[0].Name)
		}
		return err
	})
	for _, name := range []string{release + "-endpoint-credentials", release + "-legacy"} {
		w.gone(t, ns, name, "Secret", "Service")
	}
}

// uninstall removes a release of ours, and what a migration keeps for the way
// back.
func (w *world) uninstall(t *testing.T, ns, release string) {
	t.Helper()
	u := action.NewUninstall(w.helmIn(t, ns))
	u.Wait, u.Timeout = true, started
	if _, err := u.Run(release); err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{ns, falcos} {
		if err := w.api.CoreV1().Secrets(in).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "metawire.dev/migration"}); err != nil {
			t.Fatal(err)
		}
	}
}

// testMigrateFailures: what fails before the removal is undone, and the old
// release works.
func testMigrateFailures(t *testing.T, w *world) {
	const old = "failing"
	w.installOld(t, oldcharts.Metacollector, old, falcos, oldStream())
	service := old + "-k8s-metacollector"
	d := daemon{name: "legacy", config: byHand(service+"."+falcos+".svc", 45000, "${FALCO_K8S_NODE_NAME}", "")}
	pod := w.start(t, d)
	w.exactly(t, d, pod)
	for _, tc := range []struct {
		name, says string
		args       []string
		pods       string // the most that the namespace may have
	}{
		{"install: an image that is not there", "✗ install release", []string{"--set", "image.tag=none", "--timeout", "15s"}, ""},
		{"verify: no room for the test's pod", "✗ helm test", nil, "4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.pods != "" {
				quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse(tc.pods)}}}
				if _, err := w.api.CoreV1().ResourceQuotas(falcos).Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := w.api.CoreV1().ResourceQuotas(falcos).Delete(t.Context(), quota.Name, metav1.DeleteOptions{}); err != nil {
						t.Error(err)
					}
				}()
			}
			out, code := w.migration(t, append([]string{"--yes", "--release", old, "--set", "webhook.enabled=false"}, tc.args...)...)
			if code != 1 || !strings.Contains(out, tc.says) || !strings.Contains(out, "all is as it was") {
				t.Fatalf("ended with %d, want 1, %q, and that all is as it was:\n%s", code, tc.says, out)
			}
			if got := w.fingerprint(t, falcos, old); got != "revision 1, deployed" {
				t.Errorf("the old release is %s", got)
			}
			w.nothingOf(t, falcos, "metawire")
			w.exactly(t, d, pod)
		})
	}
	w.remove(t, d)
	t.Run("hand over: a subscriber that is not known as Falco", func(t *testing.T) {
		other := daemon{name: "other", config: byHand(service+"."+falcos+".svc", 45000, "${FALCO_K8S_NODE_NAME}", ""), change: func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].Image = "example.test/client:1"
			p.Spec.Containers[0].Name = "client"
		}}
		pod := w.start(t, other)
		w.exactly(t, other, pod)
		out, code := w.migration(t, "--yes", "--release", old, "--set", "webhook.enabled=false")
		if code != 1 || !strings.Contains(out, "have refused") || !strings.Contains(out, "all is as it was") {
			t.Fatalf("ended with %d, want 1, that it was refused, and that all is as it was:\n%s", code, out)
		}
		// Not exactly: the old collector, made anew, does not tell what was deleted
		// while it was away.
		eventually(t, soon, func(ctx context.Context) error {
			s, err := other.state(ctx, pod)
			if err == nil && len(s.Attempts) == len(s.Ends) {
				err = fmt.Errorf("it has no stream: %s", ended(s))
			}
			return err
		})
		w.nothingOf(t, falcos, "metawire")
		w.remove(t, other)
	})
	w.uninstallOld(t, falcos, old)
}

// testMigrateKilled: a run that is killed, wherever, is taken up by the next, and
// the end is the same.
func testMigrateKilled(t *testing.T, w *world) {
	t.Run("an inventory", func(t *testing.T) {
		t.Parallel()
		testMigrateKilledInventory(t, w)
	})
	t.Run("on the way back", func(t *testing.T) {
		t.Parallel()
		testMigrateKilledOnTheWayBack(t, w)
	})
	// What the command says as a step begins; and a step later it is in the middle
	// of the next.
	for i, at := range []string{
		"  back up", "  install release", "✓ install release", "  helm test", "✓ helm test", "  lead Service", "✓ lead Service",
		"✓ end the old collectors", "✓ see for", "  remove the objects", "✓ remove the objects", "  remove Helm's records",
	} {
		t.Run(strings.TrimSpace(at), func(t *testing.T) {
			t.Parallel()
			ns := fmt.Sprintf("killed-%d", i)
			w.createNamespace(t, ns)
			old, to := "old-"+ns, "metawire-"+ns
			w.installOld(t, oldcharts.Metacollector, old, ns, oldStream())
			args := w.migrateArgs(t, "--yes", "--namespace", ns, "--to-release", to, "--set", "webhook.enabled=false,collector.replicas=1")
			w.killAt(t, at, args...)
			out, code := w.migration(t, "--yes", "--namespace", ns, "--to-release", to, "--set", "webhook.enabled=false,collector.replicas=1")
			if code != 0 {
				t.Fatalf("the run after that ended with %d:\n%s", code, out)
			}
			if got := w.fingerprint(t, ns, to); got != "revision 1, deployed" {
				t.Errorf("the new release is %s\n%s", got, out)
			}
			if got := w.fingerprint(t, ns, old); !strings.Contains(got, "not found") {
				t.Errorf("the old release is %s\n%s", got, out)
			}
			w.gone(t, ns, old+"-k8s-metacollector", "Deployment", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")
			if s, err := w.api.CoreV1().Services(ns).Get(t.Context(), old+"-k8s-metacollector", metav1.GetOptions{}); err != nil || s.Labels["metawire.dev/legacy"] != old {
				t.Errorf("the old Service does not lead to the new release: %v", err)
			}
			w.uninstall(t, ns, to)
		})
	}
}

// testMigrateKilledInventory is the same of an inventory, of which there can be one
// at a time.
func testMigrateKilledInventory(t *testing.T, w *world) {
	const ns, old, to = "killed-inventory", "firefly", "metawire-killed-inventory"
	w.createNamespace(t, ns)
	endpoint := &fireflyService{Receiver: receiver.New(receiver.Options{AccessKey: fireflyKey, SecretKey: fireflySecret})}
	values := oldInventory(w.serve(t, endpoint))
	for _, at := range []string{"  suspend", "✓ copy the credentials", "  send the inventory", "✓ send the inventory", "  remove the objects"} {
		w.installOld(t, oldcharts.Firefly, old, ns, values)
		args := []string{"--yes", "--namespace", ns, "--to-release", to}
		w.killAt(t, at, w.migrateArgs(t, args...)...)
		if out, code := w.migration(t, args...); code != 0 {
			t.Fatalf("killed at %q, the run after that ended with %d:\n%s", at, code, out)
		}
		if got := w.fingerprint(t, ns, to); got != "revision 1, deployed" {
			t.Errorf("killed at %q: the new release is %s", at, got)
		}
		w.gone(t, ns, old+"-cronjob", "CronJob")
		w.gone(t, ns, old+"-credentials", "Secret")
		w.gone(t, ns, "infralight-role", "ClusterRole")
		if slices.Contains(endpoint.boards, "/off") {
			t.Errorf("killed at %q: the cluster was signed off", at)
		}
		w.uninstall(t, ns, to)
	}
}

// testMigrateKilledOnTheWayBack kills --rollback, too.
func testMigrateKilledOnTheWayBack(t *testing.T, w *world) {
	const ns, old, to = "killed-back", "old-killed-back", "metawire-killed-back"
	w.createNamespace(t, ns)
	w.installOld(t, oldcharts.Metacollector, old, ns, oldStream())
	w.mustMigrate(t, "--namespace", ns, "--to-release", to, "--set", "webhook.enabled=false,collector.replicas=1")
	back := []string{"--rollback", "--yes", "--namespace", ns}
	for _, at := range []string{"  bring back", "✓ bring back", "  lead the old Service back", "  remove release"} {
		w.killAt(t, at, w.migrateArgs(t, back...)...)
	}
	if out, code := w.migration(t, back...); code != 0 {
		t.Fatalf("the run after that ended with %d:\n%s", code, out)
	}
	if got := w.fingerprint(t, ns, old); got != "revision 1, deployed" {
		t.Errorf("the old release is %s", got)
	}
	w.rolledOut(t, ns, old+"-k8s-metacollector")
	w.nothingOf(t, ns, to)
}

// killAt runs the command line and kills it when it has written the words. That it
// has ended by then is no failure: where its steps are short, it may.
func (w *world) killAt(t *testing.T, words string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), migrated)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.commandLine(t), append(args, "--kubeconfig", w.cluster.Kubeconfig())...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = nil
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	chunk := make([]byte, 1<<12)
	for !strings.Contains("\n"+text.String(), "\n"+words) {
		n, err := stderr.Read(chunk)
		text.Write(chunk[:n])
		if err != nil {
			t.Errorf("it never said %q:\n%s", words, text.String())
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}
