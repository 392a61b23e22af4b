package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/collector/inventory/receiver"
	"github.com/metawire/metawire/tests/e2e/release"
	"github.com/metawire/metawire/tests/oldcharts"
)

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
	args := []string{"--namespace", ns, "--set", "inventory.loginEndpoint=" + url}
	as := w.limited(t, "sends", ns, args...)
	args = append(args, "--kubeconfig", as)
	w.mustMigrate(t, append(args, "--keep-old")...)
	w.suspend(t, ns, old+"-cronjob", false)
	if out, code := w.migration(t, append(args, "--yes")...); code != 1 || !strings.Contains(out, "is not suspended any more") || !strings.Contains(out, "nothing was removed") {
		t.Errorf("two would send: ended with %d, want 1, and why:\n%s", code, out)
	}
	if out, code := w.migration(t, "--kubeconfig", as, "--namespace", ns, "--rollback", "--yes"); code != 0 {
		t.Fatalf("--rollback ended with %d:\n%s", code, out)
	}
	w.nothingOf(t, ns, "metawire")
	before := endpoint.closed()
	t.Log(w.mustMigrate(t, args...))
	if n := endpoint.closed() - before; n != 1 {
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

	w.suspend(t, ns, old+"-cronjob", true)
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

// suspend lets a CronJob make no Jobs, or some again.
func (w *world) suspend(t *testing.T, ns, cronJob string, suspend bool) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, suspend)
	if _, err := w.api.BatchV1().CronJobs(ns).Patch(t.Context(), cronJob, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}
