package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"helm.sh/helm/v3/pkg/action"
	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	helmtime "helm.sh/helm/v3/pkg/time"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/migrate"
	"github.com/metawire/metawire/tests/oldcharts"
)

// recorded writes a release as Helm does, and installs nothing.
func recorded(t *testing.T, namespace, name, chart string, revision int, status release.Status, change func(*release.Release)) {
	t.Helper()
	r := &release.Release{
		Name: name, Namespace: namespace, Version: revision,
		Info:  &release.Info{Status: status, FirstDeployed: helmtime.Now(), LastDeployed: helmtime.Now()},
		Chart: &helmchart.Chart{Metadata: &helmchart.Metadata{Name: chart, Version: "1.2.3", APIVersion: "v2"}, Values: map[string]any{}},
	}
	if change != nil {
		change(r)
	}
	client, err := kubernetes.NewForConfig(apiREST)
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("sh.helm.release.v1.%s.v%d", name, revision)
	if err := driver.NewSecrets(client.CoreV1().Secrets(namespace)).Create(key, r); err != nil {
		t.Fatal(err)
	}
}

// migrator is somebody's whom the audit log tells from others.
func migrator(t *testing.T, o migrate.Options) (m *migrate.Migrator, user string) {
	t.Helper()
	user = "migrator-" + uuid.NewString()
	config := rest.CopyConfig(apiREST)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	config.QPS, config.Burst = 50, 100 // as the command's
	m, err := migrate.New(config, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, user
}

// TestMigrateManyReleases: of 200 releases in 50 namespaces, each with several
// revisions, one is an old collector's. It is found within seconds, and of the
// others nothing is read but what says of which chart they are.
func TestMigrateManyReleases(t *testing.T) {
	const namespaces, each = 50, 4
	for range namespaces {
		ns := newNamespace(t)
		for i := range each {
			name := fmt.Sprintf("release-%d", i)
			padding := func(r *release.Release) { r.Manifest = strings.Repeat("# a manifest of some length\n", 5000) }
			recorded(t, ns, name, "nginx", 1, release.StatusSuperseded, padding)
			recorded(t, ns, name, "nginx", 2, release.StatusDeployed, padding)
			recorded(t, ns, name, "nginx", 3, release.StatusFailed, padding)
		}
	}
	old := newNamespace(t)
	recorded(t, old, "collector", "k8s-metacollector", 1, release.StatusPendingInstall, nil)
	m, user := migrator(t, migrate.Options{})
	began := time.Now()
	s, err := m.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%d releases took %s", namespaces*each, took.Round(time.Millisecond))
	if took > 20*time.Second {
		t.Errorf("that took %s, want seconds", took)
	}
	found := map[string]bool{}
	for _, p := range s.Plans {
		found[p.Old.String()] = true
	}
	if !found[old+"/collector"] {
		t.Errorf("the old release is not found: %v", found)
	}
	for name, n := range secretsRead(t, user) {
		if n > 1 || !strings.HasSuffix(name, ".v2") && !strings.HasPrefix(name, old+"/") {
			t.Errorf("Secret %s was read %d times: want the deployed revision only, once", name, n)
		}
	}
}

// secretsRead is which Secrets were read whole by a user, by the API server's
// audit log. A list is an error if it has no limit, or no label.
func secretsRead(t *testing.T, user string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(plane.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]int{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var e struct {
			Stage, Verb, RequestURI string
			ImpersonatedUser        struct{ Username string }
			ObjectRef               struct{ Resource, Namespace, Name string }
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.ImpersonatedUser.Username != user || e.Stage != "ResponseComplete" || e.ObjectRef.Resource != "secrets" {
			continue
		}
		switch e.Verb {
		case "get":
			read[e.ObjectRef.Namespace+"/"+e.ObjectRef.Name]++
		case "list":
			u, err := url.Parse(e.RequestURI)
			if err != nil {
				t.Fatal(err)
			}
			selector := u.Query().Get("labelSelector")
			if selector != "metawire.dev/migration" && (selector != "owner=helm" || u.Query().Get("limit") == "") {
				t.Errorf("all Secrets are read: %s", e.RequestURI)
			}
		default:
			t.Errorf("a survey does not %s %s", e.Verb, e.RequestURI)
		}
	}
	return read
}

// installOld installs an old chart; here its pods never run.
func installOld(t *testing.T, chart, name, namespace string, values map[string]any) {
	t.Helper()
	config, err := oldcharts.Helm(plane.Kubeconfig(), t.TempDir(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	if err := oldcharts.Install(t.Context(), config, chart, name, namespace, values, false, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		u := action.NewUninstall(config)
		u.DisableHooks = true
		if _, err := u.Run(name); err != nil {
			t.Error(err)
		}
	})
}

// planOf is the plan for the releases of a namespace, which is one.
func planOf(t *testing.T, m *migrate.Migrator) *migrate.Plan {
	t.Helper()
	s, err := m.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Plans) != 1 {
		t.Fatalf("want one plan, got %d: %+v", len(s.Plans), s.Plans)
	}
	return s.Plans[0]
}

// TestMigrateRefuses: each reason not to migrate is a problem of the plan, which
// says what to do; then nothing is done.
func TestMigrateRefuses(t *testing.T) {
	inventory := map[string]any{"clusterId": "c", "accessKey": "canary-key", "secretKey": "canary-secret", "apiEndpoint": "https://api.example"}
	with := func(key string, value any) map[string]any {
		v := maps.Clone(inventory)
		v[key] = value
		return v
	}
	deployment := func(t *testing.T, ns string, change func(*appsv1.Deployment)) {
		var d appsv1.Deployment
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "old-k8s-metacollector"}, &d); err != nil {
			t.Fatal(err)
		}
		change(&d)
		if err := api.Update(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, chart string
		values      map[string]any
		before      func(t *testing.T, ns string)
		options     func(o *migrate.Options)
		as          string // who it is that migrates
		want        string
	}{
		{name: "Argo CD", chart: oldcharts.Metacollector, before: func(t *testing.T, ns string) {
			deployment(t, ns, func(d *appsv1.Deployment) {
				d.Annotations["argocd.argoproj.io/tracking-id"] = "falco:apps/Deployment:x/y"
			})
		}, want: "is managed by Argo CD (application falco)"},
		{name: "Flux", chart: oldcharts.Metacollector, before: func(t *testing.T, ns string) {
			deployment(t, ns, func(d *appsv1.Deployment) { d.Labels["helm.toolkit.fluxcd.io/name"] = "collector" })
		}, want: "is managed by Flux (HelmRelease collector)"},
		{name: "an object in the way", chart: oldcharts.Metacollector, before: func(t *testing.T, ns string) {
			create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "metawire-" + ns + "-collector"}})
		}, options: func(o *migrate.Options) { o.ToRelease = "metawire-" + o.Namespace }, want: "is in the way"},
		{name: "no permission", chart: oldcharts.Metacollector, as: "nobody-much", before: func(t *testing.T, ns string) {
			create(t, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "view-" + ns}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reads-" + ns},
				Subjects: []rbacv1.Subject{{Kind: "User", Name: "nobody-much"}},
			})
			create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reads-" + ns}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list"}}}})
		}, want: "you lack these permissions:"},
		{name: "an unknown key", chart: oldcharts.Metacollector, values: map[string]any{"replicaCuont": 2}, want: "replicaCuont: no such key is known; is replicaCount meant?"},
		{name: "a value of ours that the chart does not take", chart: oldcharts.Metacollector, options: func(o *migrate.Options) {
			o.Values = map[string]any{"collector": map[string]any{"replicas": "many"}}
		}, want: "replicas"},
		{name: "values of ours by which nobody who comes without TLS is served", chart: oldcharts.Metacollector, options: func(o *migrate.Options) {
			o.Values = map[string]any{"stream": map[string]any{"plaintext": map[string]any{"enabled": false}}}
		}, want: "comes without TLS"},
		{name: "a NodePort, into another namespace", chart: oldcharts.Metacollector, values: map[string]any{"service": map[string]any{"type": "NodePort"}}, options: func(o *migrate.Options) {
			o.ToNamespace = "default"
		}, want: "(NodePort) cannot lead into another namespace"},
		{name: "a name that is too long", chart: oldcharts.Metacollector, options: func(o *migrate.Options) {
			o.ToRelease = strings.Repeat("long", 14)
		}, want: "give a shorter one"},
		{name: "its Deployment is gone", chart: oldcharts.Metacollector, before: func(t *testing.T, ns string) {
			if err := api.Delete(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "old-k8s-metacollector"}}); err != nil {
				t.Fatal(err)
			}
		}, want: "has no Deployment in the cluster any more"},
		{name: "a part of Falco's release", chart: oldcharts.Falco, values: map[string]any{"collectors": map[string]any{"kubernetes": map[string]any{"enabled": true}}},
			want: "--reuse-values --set collectors.kubernetes.enabled=false"},
		{name: "an endpoint that refuses", chart: oldcharts.Firefly, values: inventory, options: func(o *migrate.Options) {
			o.Endpoint = func(_ context.Context, e migrate.Endpoint) error {
				if e.AccessKey != "canary-key" || e.SecretKey != "canary-secret" || e.URL != "https://api.example" || e.ClusterID != "c" || e.ClusterUID == "" {
					return fmt.Errorf("was asked as %+v", e)
				}
				return errors.New("401 for these keys")
			}
		}, want: "the endpoint does not take this cluster's inventory: 401 for these keys"},
		{name: "a cluster id that is none", chart: oldcharts.Firefly, values: with("clusterId", "My Cluster"), want: `clusterId is "My Cluster"`},
		{name: "a Secret without keys", chart: oldcharts.Firefly, values: with("existingFireFlyCredentialsSecret", "mine"), before: func(t *testing.T, ns string) {
			create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "mine"}, StringData: map[string]string{"accessKey": "canary-key"}})
		}, want: "has no secretKey"},
		{name: "a Secret in the way", chart: oldcharts.Firefly, values: inventory, before: func(t *testing.T, ns string) {
			create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "metawire-endpoint-credentials"}})
		}, want: "/metawire-endpoint-credentials is in the way"},
		{name: "no Secret", chart: oldcharts.Firefly, values: with("existingFireFlyCredentialsSecret", "mine"), want: "is gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := newNamespace(t)
			installOld(t, tc.chart, "old", ns, tc.values)
			if tc.before != nil {
				tc.before(t, ns)
			}
			o := migrate.Options{Namespace: ns, Backup: filepath.Join(t.TempDir(), "backup")}
			if tc.options != nil {
				tc.options(&o)
			}
			config := rest.CopyConfig(apiREST)
			config.Impersonate.UserName = tc.as
			m, err := migrate.New(config, o)
			if err != nil {
				t.Fatal(err)
			}
			p := planOf(t, m)
			all, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(p.Problems, func(s string) bool { return strings.Contains(s, tc.want) }) {
				t.Errorf("the plan has no problem with %q: %q", tc.want, p.Problems)
			}
			if strings.Contains(string(all), "canary-") {
				t.Errorf("a credential is in the plan: %s", all)
			}
			if _, err := m.Apply(t.Context(), p); !errors.Is(err, migrate.ErrProblems) {
				t.Errorf("a plan with problems was carried out: %v", err)
			}
			left := &corev1.SecretList{}
			if err := api.List(t.Context(), left, client.InNamespace(ns), client.HasLabels{"metawire.dev/migration"}); err != nil || len(left.Items) > 0 {
				t.Errorf("something was begun: %d Secrets, %v", len(left.Items), err)
			}
			if _, err := os.Stat(o.Backup); err == nil {
				t.Error("a backup was written")
			}
		})
	}
}

// TestMigratePlan: the plan for an inventory says what becomes of it, and who may
// read what.
func TestMigratePlan(t *testing.T) {
	ns := newNamespace(t)
	installOld(t, oldcharts.Firefly, "old", ns, map[string]any{
		"clusterId": "c", "accessKey": "canary-key", "secretKey": "canary-secret", "apiEndpoint": "https://api.example", "schedule": "7 * * * *",
		"overrideUniqueClusterId": true,
	})
	m, user := migrator(t, migrate.Options{Namespace: ns, ToRelease: "metawire-" + ns})
	p := planOf(t, m)
	if len(p.Problems) > 0 {
		t.Errorf("problems: %q", p.Problems)
	}
	change := map[string]migrate.Action{}
	for _, c := range p.Objects {
		change[c.String()] = c.Action
	}
	to := "metawire-" + ns
	for object, want := range map[string]migrate.Action{
		"CronJob " + ns + "/old-cronjob":                       migrate.Remove,
		"Secret " + ns + "/old-credentials":                    migrate.Remove,
		"ClusterRole infralight-role":                          migrate.Remove,
		"Job " + ns + "/old-collector-off-boarder":             migrate.Remove,
		"CronJob " + ns + "/" + to + "-inventory":              migrate.Create,
		"Secret " + ns + "/" + to + "-endpoint-credentials":    migrate.Create,
		"Secret " + ns + "/metawire-migration-old":             migrate.Create,
		"ClusterRole " + to + "-inventory":                     migrate.Create,
		"ServiceAccount " + ns + "/infralight-service-account": migrate.Remove,
		"ClusterRoleBinding infralight-role-binding":           migrate.Remove,
	} {
		if change[object] != want {
			t.Errorf("%s: got %q, want %q", object, change[object], want)
		}
	}
	permissions := strings.Join(p.Permissions, "\n")
	for _, want := range []string{"before, ClusterRole infralight-role: get, list, watch everything there is, the contents of Secrets too", "Secrets, before: all can be read, in every namespace"} {
		if !strings.Contains(permissions, want) {
			t.Errorf("the plan does not say %q:\n%s", want, permissions)
		}
	}
	if strings.Contains(permissions, "after, ClusterRole "+to+"-inventory: list secrets") {
		t.Errorf("the new release may read Secrets:\n%s", permissions)
	}
	for name := range secretsRead(t, user) {
		if name != ns+"/old-credentials" && name != ns+"/sh.helm.release.v1.old.v1" && !strings.HasPrefix(name, ns+"/metawire-") {
			t.Errorf("Secret %s was read", name)
		}
	}
}

// TestMigrateOldPlan: a plan for what is another by now is not carried out: the
// old release was upgraded, or is gone because somebody else has migrated it.
func TestMigrateOldPlan(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, ns string){
		"upgraded": func(t *testing.T, ns string) {
			recorded(t, ns, "old", "k8s-metacollector", 2, release.StatusDeployed, nil)
			t.Cleanup(func() { // its objects are of the first
				if err := api.Delete(context.Background(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "sh.helm.release.v1.old.v2"}}); err != nil {
					t.Error(err)
				}
			})
		},
		"gone": func(t *testing.T, ns string) {
			var record corev1.Secret
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "sh.helm.release.v1.old.v1"}, &record); err != nil {
				t.Fatal(err)
			}
			if err := api.Delete(t.Context(), record.DeepCopy()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // for what uninstalls it
				record.ResourceVersion, record.UID = "", ""
				if err := api.Create(context.Background(), &record); err != nil {
					t.Error(err)
				}
			})
		},
		"edited": func(t *testing.T, ns string) {
			var d appsv1.Deployment
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "old-k8s-metacollector"}, &d); err != nil {
				t.Fatal(err)
			}
			d.Spec.Template.Spec.Containers[0].Args = append(d.Spec.Template.Spec.Containers[0].Args, "--more")
			if err := api.Update(t.Context(), &d); err != nil {
				t.Fatal(err)
			}
		},
		"an object of it is gone": func(t *testing.T, ns string) {
			if err := api.Delete(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "old-k8s-metacollector"}}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			installOld(t, oldcharts.Metacollector, "old", ns, nil)
			m, _ := migrator(t, migrate.Options{Namespace: ns, ToRelease: "metawire-" + ns, Backup: filepath.Join(t.TempDir(), "backup")})
			p := planOf(t, m)
			change(t, ns)
			if _, err := m.Apply(t.Context(), p); err == nil || !strings.Contains(err.Error(), "has changed since the plan was made") {
				t.Errorf("got %v, want that it has changed", err)
			}
			left := &corev1.SecretList{}
			if err := api.List(t.Context(), left, client.InNamespace(ns), client.HasLabels{"metawire.dev/migration"}); err != nil || len(left.Items) > 0 {
				t.Errorf("something was begun: %d Secrets, %v", len(left.Items), err)
			}
		})
	}
}
