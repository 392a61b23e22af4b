package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/action"
	helmrelease "helm.sh/helm/v3/pkg/release"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/migrate"
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

	w.evicted(t, old)
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
	if out, code := w.migration(t, "--finish", "--yes"); code != 1 || !strings.Contains(out, "1 subscribers still come") {
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

	w.mustMigrate(t, "--keep-old")
	if out, code := w.migration(t, "--keep-old", "--dry-run"); code != 0 {
		t.Errorf("it was kept: with --keep-old there is nothing to do, but it ended with %d:\n%s", code, out)
	}
	w.unready(t, falcos, "metawire-collector", 2, func() { // days later the new one does not work: what is kept stays
		out, code := w.migration(t, "--yes", "--timeout", "20s")
		if code != 1 || !strings.Contains(out, "nothing was removed") {
			t.Errorf("the new collectors are away: ended with %d, want 1, and that nothing was removed:\n%s", code, out)
		}
		if got := w.fingerprint(t, falcos, old); got != "revision 1, deployed" {
			t.Errorf("the old release is %s", got)
		}
	})
	w.failedUpgrade(t, old)
	w.mustMigrate(t)
	if got := w.fingerprint(t, falcos, old); !strings.Contains(got, "not found") {
		t.Errorf("the old release is %s", got)
	}
	w.remove(t, d)
	if out, code := w.migration(t, "--finish", "--yes"); code != 0 {
		t.Fatalf("nobody uses the old Service: --finish ended with %d:\n%s", code, out)
	}
	w.gone(t, falcos, old, "Service")
	w.uninstall(t, falcos, "metawire")
}

// evicted puts a pod of an old collector there that has ended, and that nobody
// deletes.
func (w *world) evicted(t *testing.T, old string) {
	t.Helper()
	d, err := w.api.AppsV1().Deployments(falcos).Get(t.Context(), old, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "evicted", Labels: d.Spec.Template.Labels}, Spec: *d.Spec.Template.Spec.DeepCopy()}
	pod.Spec.RestartPolicy, pod.Spec.Containers[0].Command, pod.Spec.Containers[0].Args = corev1.RestartPolicyNever, []string{"/none"}, nil
	pod.Spec.Containers[0].LivenessProbe, pod.Spec.Containers[0].ReadinessProbe = nil, nil
	delete(pod.Labels, "pod-template-hash")
	if _, err := w.api.CoreV1().Pods(falcos).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := w.api.CoreV1().Pods(falcos).Delete(context.Background(), pod.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	eventually(t, started, func(ctx context.Context) error {
		p, err := w.api.CoreV1().Pods(falcos).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodFailed {
			err = fmt.Errorf("pod %s is %s, want Failed", p.Name, p.Status.Phase)
		}
		return err
	})
}

// failedUpgrade records an upgrade of the old release that failed.
func (w *world) failedUpgrade(t *testing.T, old string) {
	t.Helper()
	helm := w.helmIn(t, falcos)
	r, err := action.NewGet(helm).Run(old)
	if err != nil {
		t.Fatal(err)
	}
	r.Version++
	r.Info.Status = helmrelease.StatusFailed
	if err := helm.Releases.Create(r); err != nil {
		t.Fatal(err)
	}
}

// unready does something while no collector of a release of ours runs.
func (w *world) unready(t *testing.T, ns, deployment string, replicas int, do func()) {
	t.Helper()
	scale := func(n int) {
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
		if _, err := w.api.AppsV1().Deployments(ns).Patch(t.Context(), deployment, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	scale(0)
	eventually(t, started, func(ctx context.Context) error {
		pods, err := w.api.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=collector"})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("pod %s is left", pods.Items[0].Name)
		}
		return err
	})
	do()
	scale(replicas)
	w.rolledOut(t, ns, deployment)
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
	as := w.limited(t, "streams", to, "--namespace", falcos, "--release", old, "--to-namespace", to, "--set", "collector.replicas=1")
	out := w.mustMigrate(t, "--kubeconfig", as, "--namespace", falcos, "--release", old, "--to-namespace", to, "--set", "collector.replicas=1")
	t.Log(out)
	if want := "1 subscribers have come over the old Service, of 1 that the old collectors served"; !strings.Contains(out, want) {
		t.Errorf("the command does not say: %s", want)
	}
	s := w.followed(t, "over, by a name", d, pod, 0)
	if out, code := w.migration(t, "--kubeconfig", as, "--rollback", "--yes", "--namespace", falcos, "--release", old); code != 0 {
		t.Fatalf("--rollback ended with %d:\n%s", code, out)
	}
	w.followed(t, "back, from a name", d, pod, len(s.Ends))
	w.nothingOf(t, to, "metawire")
	w.mustMigrate(t, "--release", old, "--to-namespace", to, "--set", "collector.replicas=1")
	w.gone(t, falcos, service, "Deployment", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")
	w.remove(t, d)
	if out, code := w.migration(t, "--kubeconfig", as, "--finish", "--yes", "--namespace", falcos, "--release", old); code != 0 {
		t.Fatalf("--finish ended with %d:\n%s", code, out)
	}
	w.gone(t, falcos, service, "Service")
	w.uninstall(t, to, "metawire")
	w.nothingOf(t, to, "metawire")
	if list, err := w.api.CoreV1().Services(to).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
		t.Errorf("Services are left: %v, %v", list, err)
	}
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
