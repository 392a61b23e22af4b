package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/charts"
)

// TestRelease takes one release through its life. The parts build on each
// other.
func TestRelease(t *testing.T) {
	w := newWorld(t, "e2e", 3)
	part := func(name string, test func(*testing.T)) bool {
		return t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					w.dump(context.WithoutCancel(t.Context()), t.Output())
				}
			})
			test(t)
		})
	}
	if !part("install", func(t *testing.T) { testInstall(t, w) }) {
		return
	}
	part("pod security", func(t *testing.T) { testPodSecurity(t, w) })
	part("permissions", func(t *testing.T) { testPermissions(t, w) })
	part("helm test", func(t *testing.T) { testHelmTest(t, w) })
	part("namespace of Falco", func(t *testing.T) { w.createFalcos(t) })
	part("wiring", func(t *testing.T) { testWiring(t, w) })
	part("authorization", func(t *testing.T) { testAuthorization(t, w) })
	part("command line", func(t *testing.T) { testCommandLine(t, w) })
	part("outage of the webhook", func(t *testing.T) { testOutage(t, w) })
	part("Falco leaves", func(t *testing.T) { w.removeAll(t) }) // whoever subscribes from now on, the tests count
	w.createWorkload(t, 2)
	f := w.subscribe(t, w.service(t), subscribers)
	part("a node's metadata", func(t *testing.T) { testMetadata(t, w, f) })
	part("a replica is drained", func(t *testing.T) { testDrained(t, w, f) })
	part("a replica is killed", func(t *testing.T) { testKilled(t, w, f) })
	part("rolling restart", func(t *testing.T) { testRollingRestart(t, w, f) })
	part("edited configuration", func(t *testing.T) { testEditedConfiguration(t, w, f) })
	f.stop()
	for _, p := range f.plugins {
		for _, v := range p.Faults() {
			t.Error("the contract is broken:", v)
		}
	}
	part("upgrade", func(t *testing.T) { testUpgrade(t, w) })
	part("inventory", func(t *testing.T) { testInventory(t, w) })
	part("inventory by a CronJob", func(t *testing.T) { testInventoryJob(t, w) })
	part("uninstall", func(t *testing.T) { testUninstall(t, w) })
	part("README", func(t *testing.T) { testReadme(t, w) })
	part("sources of certificates", func(t *testing.T) { testTLSSources(t, w) })
}

// values are what a bare install needs here: the image that was built, and a
// registry that can be reached; with more at the top level.
func (w *world) values(more map[string]any) map[string]any {
	values := map[string]any{
		"image":   w.image.Values("Never"),
		"webhook": map[string]any{"plugin": map[string]any{"reference": w.registry.Reference, "plainHTTP": true}},
	}
	maps.Copy(values, more)
	return values
}

// testInstall: a bare install into a namespace that admits restricted pods only.
func testInstall(t *testing.T, w *world) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if _, err := w.api.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	installed, err := w.helm.Install(t.Context(), w.values(nil), nil, started)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"helm test -n " + namespace + " metawire", "metawire-collector.metawire.svc:45000"} {
		if !strings.Contains(installed.Info.Notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, installed.Info.Notes)
		}
	}
	d, err := w.api.AppsV1().Deployments(namespace).Get(t.Context(), collector, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Status.ReadyReplicas != 2 || *d.Spec.Replicas != 2 {
		t.Errorf("want two ready replicas: %+v", d.Status)
	}
	for _, p := range w.mustCollectors(t) {
		if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
			t.Errorf("pod %s: %d restarts", p.Name, n)
		}
	}
}

// testPodSecurity looks at the processes themselves.
func testPodSecurity(t *testing.T, w *world) {
	for _, p := range w.mustCollectors(t) {
		proc, err := processOf(p)
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile(filepath.Join(proc, "status"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`Uid:(\s65532){4}\n`, `Gid:(\s65532){4}\n`, `CapEff:\s0{16}\n`, `NoNewPrivs:\s1\n`, `Seccomp:\s2\n`} {
			if !regexp.MustCompile(want).Match(status) {
				t.Errorf("pod %s: its process lacks %s:\n%s", p.Name, want, status)
			}
		}
		mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^\d+ \d+ \S+ / / ro[, ]`).Match(mounts) {
			t.Errorf("pod %s: its root file system is not read-only:\n%s", p.Name, mounts)
		}
	}
}

// processOf returns the directory in /proc of a collector's process, which is
// found by the pod's UID in its cgroup.
func processOf(p corev1.Pod) (string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		cgroup, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(cgroup, []byte("pod"+p.UID)) {
			continue // it may have ended meanwhile
		}
		name, err := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
		if err == nil && strings.TrimSpace(string(name)) == "collector" {
			return filepath.Dir(file), nil
		}
	}
	return "", fmt.Errorf("pod %s has no process of its own", p.Name)
}

// testPermissions: the daemons have all that they ask for, and nothing else.
func testPermissions(t *testing.T, w *world) {
	for _, p := range w.mustCollectors(t) {
		if ready, err := get(t.Context(), p, 8081, "/readyz"); err != nil || ready != "ok\n" {
			t.Errorf("pod %s: want no kind missing, got %q, %v", p.Name, ready, err)
		}
	}
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	may := func(what string, verbs ...string) (all []string) {
		for _, verb := range verbs {
			all = append(all, verb+" "+what)
		}
		return all
	}
	wants := map[string][]string{
		collector: append(may("secrets metawire-ca,metawire-tickets", "list", "update", "watch"), "create events"),
		"metawire-webhook": slices.Concat(
			may("secrets metawire-ca", "list", "update", "watch"),
			may("services metawire-collector", "list", "watch"),
			may("mutatingwebhookconfigurations.admissionregistration.k8s.io zz-metawire-webhook", "list", "patch", "watch")),
	}
	for _, rt := range types {
		if rt.Streamed {
			wants[collector] = append(wants[collector], may(rt.Name(), "list", "watch")...)
		}
	}
	for account, want := range wants {
		got := w.permissions(t, account)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what %s may do:\n%s", account, diff)
		}
	}
}

// permissions are what a ServiceAccount of the release may do in its namespace,
// but for what everybody may: to ask who one is and what one may.
func (w *world) permissions(t *testing.T, account string) (got []string) {
	t.Helper()
	token, err := w.api.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(w.config)
	config.BearerToken = token.Status.Token
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("%s lists Secrets: want forbidden, got %v", account, err)
	}
	review, err := api.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range review.Status.ResourceRules {
		for _, group := range r.APIGroups {
			if group == "authorization.k8s.io" || group == "authentication.k8s.io" {
				continue
			}
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					rule := verb + " " + charts.ResourceType{Group: group, Resource: resource}.Name()
					got = append(got, strings.TrimSpace(rule+" "+strings.Join(r.ResourceNames, ",")))
				}
			}
		}
	}
	return got
}

// testHelmTest: the tests pass, what they may do is gone afterwards, and without a
// webhook they fail and say why.
func testHelmTest(t *testing.T, w *world) {
	w.helmTestSays(t, " permissions that are configured are there", ": wired: ", "+ init container metawire-wire", "PASS: the webhook wires Falco pods")
	rights := func() {
		t.Helper()
		const name = "metawire-test-webhook"
		_, account := w.api.CoreV1().ServiceAccounts(namespace).Get(t.Context(), name, metav1.GetOptions{})
		_, role := w.api.RbacV1().Roles(namespace).Get(t.Context(), name, metav1.GetOptions{})
		_, binding := w.api.RbacV1().RoleBindings(namespace).Get(t.Context(), name, metav1.GetOptions{})
		for _, err := range []error{account, role, binding} {
			if !apierrors.IsNotFound(err) {
				t.Errorf("what the test of the webhook may do is still there: %v", err)
			}
		}
	}
	rights()
	w.withoutJobs(t, func() {
		var log bytes.Buffer
		if err := w.helm.Test(&log, started); err == nil || !strings.Contains(log.String(), "permissions are not there: list and watch jobs.batch: ") {
			t.Errorf("without leave to read jobs: %v; want that it says so:\n%s", err, log.String())
		}
	})
	w.patchDeployment(t, namespace, "metawire-webhook", `{"spec":{"replicas":0}}`)
	var log bytes.Buffer
	err := w.helm.Test(&log, started)
	for _, want := range []string{"the webhook has not looked at it", "Are the webhook's pods ready?"} {
		if err == nil || !strings.Contains(log.String(), want) {
			t.Errorf("without a webhook: %v; no %q in\n%s", err, want, log.String())
		}
	}
	rights()
	w.patchDeployment(t, namespace, "metawire-webhook", `{"spec":{"replicas":2}}`)
	w.helmTestSays(t, "PASS: the webhook wires Falco pods") // it waits until the Service leads to them again
}

// withoutJobs does something while the collectors may not read Jobs.
func (w *world) withoutJobs(t *testing.T, do func()) {
	t.Helper()
	roles := w.api.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), collector, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	less := role.DeepCopy()
	for i, r := range less.Rules {
		less.Rules[i].Resources = slices.DeleteFunc(r.Resources, func(resource string) bool { return resource == "jobs" })
	}
	if less, err = roles.Update(t.Context(), less, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	do()
	less.Rules = role.Rules
	if _, err := roles.Update(t.Context(), less, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// helmTestSays: the release's tests pass, and their log says what arrived, and
// this.
func (w *world) helmTestSays(t *testing.T, wants ...string) {
	t.Helper()
	var log bytes.Buffer
	if err := w.helm.Test(&log, started); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	for _, want := range append(wants, "PASS: received") {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log.String())
		}
	}
}

// testEditedConfiguration: a user's edit of the ConfigMap arrives, by a clean
// end of the container. Each replica chooses when, within two minutes; to wait
// for the first shows it.
func testEditedConfiguration(t *testing.T, w *world, f *fleet) {
	maps := w.api.CoreV1().ConfigMaps(namespace)
	m, err := maps.Get(t.Context(), collector, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.Data["collector.yaml"] = strings.Replace(m.Data["collector.yaml"], "\nstream:\n", "\nstream:\n  pacing: {burst: 500, rate: 1000}\n", 1)
	if _, err := maps.Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	marks := f.mark()
	var restarted corev1.Pod
	took := eventually(t, reconfigured, func(ctx context.Context) error {
		pods, err := w.collectors(ctx)
		if err != nil {
			return err
		}
		for _, p := range pods {
			if s := p.Status.ContainerStatuses[0]; s.LastTerminationState.Terminated != nil && s.Ready {
				restarted = p
				return nil
			}
		}
		return errors.New("no container has ended and is ready again")
	})
	t.Logf("pod %s has restarted after %.1f s", restarted.Name, took.Seconds())
	if code := restarted.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode; code != 0 {
		t.Errorf("pod %s: its container ended with %d", restarted.Name, code)
	}
	if log, err := w.log(t.Context(), restarted, true); err != nil || !strings.Contains(log, "the configuration file has changed") {
		t.Errorf("pod %s does not say why it ended: %v\n%s", restarted.Name, err, log)
	}
	// Replicas choose their times by chance. If the other one chose nearly the
	// same, there was a moment without any, and no status to hold to.
	alone := true
	for _, p := range w.mustCollectors(t) {
		alone = alone && (p.Name == restarted.Name || p.Status.ContainerStatuses[0].RestartCount == 0 && p.Status.ContainerStatuses[0].Ready)
	}
	if !alone {
		t.Log("both replicas restarted at nearly the same time: only the views are looked at")
		f.right(t, w)
		return
	}
	f.check(t, w, marks)
}

// testUninstall: nothing of the release stays but the pod of helm test, which
// Helm leaves to whoever wants to read its log.
func testUninstall(t *testing.T, w *world) {
	installed, err := w.helm.Current()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.helm.Uninstall(started); err != nil {
		t.Fatal(err)
	}
	if current, err := w.helm.Current(); err != nil || current != nil {
		t.Errorf("want no release, got %v, %v", current, err)
	}
	for _, object := range regexp.MustCompile(`(?m)^kind: (\w+)$`).FindAllStringSubmatch(installed.Manifest, -1) {
		if err := w.noneOf(t.Context(), object[1]); err != nil {
			t.Error(err)
		}
	}
	eventually(t, started, func(ctx context.Context) error {
		pods, err := w.pods(ctx, namespace, "app.kubernetes.io/component=collector")
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods of the collector are still there", len(pods))
		}
		return err
	})
}

// noneOf returns an error if there are objects of the kind that carry the
// release's label.
func (w *world) noneOf(ctx context.Context, kind string) error {
	path, ok := map[string]string{
		"ServiceAccount":               "/api/v1/namespaces/metawire/serviceaccounts",
		"ConfigMap":                    "/api/v1/namespaces/metawire/configmaps",
		"Service":                      "/api/v1/namespaces/metawire/services",
		"Deployment":                   "/apis/apps/v1/namespaces/metawire/deployments",
		"PodDisruptionBudget":          "/apis/policy/v1/namespaces/metawire/poddisruptionbudgets",
		"Lease":                        "/apis/coordination.k8s.io/v1/namespaces/metawire/leases",
		"CronJob":                      "/apis/batch/v1/namespaces/metawire/cronjobs",
		"Secret":                       "/api/v1/namespaces/metawire/secrets",
		"Role":                         "/apis/rbac.authorization.k8s.io/v1/namespaces/metawire/roles",
		"RoleBinding":                  "/apis/rbac.authorization.k8s.io/v1/namespaces/metawire/rolebindings",
		"MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
		"ClusterRole":                  "/apis/rbac.authorization.k8s.io/v1/clusterroles",
		"ClusterRoleBinding":           "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	}[kind]
	if !ok {
		return fmt.Errorf("the test does not know where objects of kind %s are", kind)
	}
	var list metav1.PartialObjectMetadataList
	answer, err := w.api.CoreV1().RESTClient().Get().AbsPath(path).
		Param("labelSelector", "app.kubernetes.io/instance=metawire").DoRaw(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	for _, o := range list.Items {
		return fmt.Errorf("%s %s is still there", kind, o.Name)
	}
	return nil
}

// service returns the address of the stream's Service: the host is routed to it.
func (w *world) service(t *testing.T) string {
	t.Helper()
	s, err := w.api.CoreV1().Services(namespace).Get(t.Context(), collector, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(s.Spec.ClusterIP, "45000")
}
