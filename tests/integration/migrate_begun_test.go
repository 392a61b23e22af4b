package integration_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/release"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/migrate"
	migraterelease "github.com/metawire/metawire/migrate/release"
	"github.com/metawire/metawire/tests/oldcharts"
)

// forNamespace are the options of a migration in a namespace of its own, whose new
// release is never ready: no pod runs here.
func forNamespace(t *testing.T, ns string) migrate.Options {
	t.Helper()
	return migrate.Options{Namespace: ns, ToRelease: "metawire-" + ns, Backup: filepath.Join(t.TempDir(), "backup"), Timeout: 2 * time.Second}
}

// begun begins a migration, and ends it like a signal does when a step begins.
func begun(t *testing.T, ns, at string, o migrate.Options) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	o.Tell = func(s migrate.Step) {
		if !s.Ended && strings.HasPrefix(s.Says, at) {
			interrupt()
		}
	}
	m, _ := migrator(t, o)
	if _, err := m.Apply(ctx, planOf(t, m)); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Fatalf("got %v, want that it was interrupted", err)
	}
	t.Cleanup(func() {
		state := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "metawire-migration-old"}}
		if err := client.IgnoreNotFound(api.Delete(context.Background(), state)); err != nil {
			t.Error(err)
		}
		u := action.NewUninstall(helmIn(t, ns))
		u.IgnoreNotFound = true
		if _, err := u.Run("metawire-" + ns); err != nil {
			t.Error(err)
		}
	})
}

// TestMigrateBack: a migration that fails goes back, also where the old collector
// was not ready before; that is not waited for.
func TestMigrateBack(t *testing.T) {
	ns := newNamespace(t)
	installOld(t, oldcharts.Metacollector, "old", ns, nil)
	m, _ := migrator(t, forNamespace(t, ns))
	began := time.Now()
	_, err := m.Apply(t.Context(), planOf(t, m))
	if err == nil || !strings.Contains(err.Error(), "all is as it was") {
		t.Errorf("got %v, want that all is as it was", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("that took %s", took)
	}
	var d appsv1.Deployment
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "old-k8s-metacollector"}, &d); err != nil || ptr.Deref(d.Spec.Replicas, 0) != 1 {
		t.Errorf("the old Deployment has %v replicas, %v", d.Spec.Replicas, err)
	}
	left := &appsv1.DeploymentList{}
	if err := api.List(t.Context(), left, client.InNamespace(ns), client.MatchingLabels{"app.kubernetes.io/part-of": "metawire"}); err != nil || len(left.Items) > 0 {
		t.Errorf("of the new release is left: %v, %v", left.Items, err)
	}
	states := &corev1.SecretList{}
	if err := api.List(t.Context(), states, client.InNamespace(ns), client.HasLabels{"metawire.dev/migration"}); err != nil || len(states.Items) > 0 {
		t.Errorf("of the migration are left %d Secrets, %v", len(states.Items), err)
	}
}

// TestMigrateBegun: what happens while a migration is interrupted is seen by the
// run that takes it up, and by the one that undoes it.
func TestMigrateBegun(t *testing.T) {
	goOn := func(t *testing.T, o migrate.Options) error {
		m, _ := migrator(t, o)
		p := planOf(t, m)
		if p.Resumes != "install" {
			t.Errorf("it goes on with %q, want install", p.Resumes)
		}
		_, err := m.Apply(t.Context(), p)
		if errors.Is(err, migrate.ErrProblems) { // as the command tells them
			err = errors.New(strings.Join(append(p.Problems, err.Error()), "\n"))
		}
		return err
	}
	undo := func(t *testing.T, o migrate.Options) error {
		m, _ := migrator(t, o)
		s, err := m.Begun(t.Context())
		if err != nil || len(s.Plans) != 1 {
			t.Fatalf("want one that was begun, got %v, %v", s, err)
		}
		_, err = m.RollBack(t.Context(), s.Plans[0].Old)
		return err
	}
	upgrade := func(t *testing.T, ns string) {
		first, err := action.NewGet(helmIn(t, ns)).Run("old")
		if err != nil {
			t.Fatal(err)
		}
		recorded(t, ns, "old", "k8s-metacollector", 2, release.StatusDeployed, func(r *release.Release) { r.Info.FirstDeployed = first.Info.FirstDeployed })
		t.Cleanup(func() { // its objects are of the first
			if err := api.Delete(context.Background(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "sh.helm.release.v1.old.v2"}}); err != nil {
				t.Error(err)
			}
		})
	}
	another := func(t *testing.T, ns string) {
		manifest := manifestOf(t, ns)
		record := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "sh.helm.release.v1.old.v1"}}
		if err := api.Delete(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		recorded(t, ns, "old", "k8s-metacollector", 1, release.StatusDeployed, func(r *release.Release) { r.Manifest = manifest })
	}
	account := func(ns string) *corev1.ServiceAccount {
		return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "old-k8s-metacollector"}}
	}
	for _, tc := range []struct {
		name      string
		meanwhile func(t *testing.T, ns string)
		options   func(o *migrate.Options)
		then      func(t *testing.T, o migrate.Options) error
		want      string // empty: it is undone
	}{
		{name: "undone", then: undo},
		{name: "the old release was upgraded", meanwhile: upgrade, then: goOn, want: "was upgraded since its migration began, to revision 2"},
		{name: "the old release was upgraded, and it is undone", meanwhile: func(t *testing.T, ns string) {
			upgrade(t, ns)
			if err := api.Delete(t.Context(), account(ns)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // what the upgrade took away stays away
				if err := api.Get(context.Background(), client.ObjectKeyFromObject(account(ns)), account(ns)); !apierrors.IsNotFound(err) {
					t.Errorf("the ServiceAccount is back: %v", err)
				}
			})
		}, then: undo},
		{name: "the old release was uninstalled", meanwhile: func(t *testing.T, ns string) {
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
		}, then: goOn, want: "was uninstalled since its migration began"},
		{name: "an object is on its way out", meanwhile: func(t *testing.T, ns string) {
			a := account(ns)
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(a), a); err != nil {
				t.Fatal(err)
			}
			a.Finalizers = append(a.Finalizers, "example.test/slow")
			if err := api.Update(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if err := api.Delete(t.Context(), a.DeepCopy()); err != nil {
				t.Fatal(err)
			}
			freed := make(chan struct{})
			go func() {
				defer close(freed)
				<-time.After(2 * time.Second)
				now := account(ns)
				if err := api.Get(context.Background(), client.ObjectKeyFromObject(a), now); err != nil {
					t.Error(err)
				}
				now.Finalizers = nil
				if err := api.Update(context.Background(), now); err != nil {
					t.Error(err)
				}
			}()
			t.Cleanup(func() {
				<-freed
				if err := api.Get(context.Background(), client.ObjectKeyFromObject(a), account(ns)); err != nil {
					t.Errorf("the ServiceAccount is not back: %v", err)
				}
			})
		}, then: undo},
		{name: "another release of that name was installed", meanwhile: another, then: goOn, want: "another release " /* and its name */},
		{name: "another release of that name was installed, and it is undone", meanwhile: another, then: undo, want: "another release "},
		{name: "an object is another release's", meanwhile: func(t *testing.T, ns string) {
			var d appsv1.Deployment
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "old-k8s-metacollector"}, &d); err != nil {
				t.Fatal(err)
			}
			d.Annotations["meta.helm.sh/release-name"] = "other"
			if err := api.Update(t.Context(), &d); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := api.Delete(context.Background(), &d); err != nil {
					t.Error(err)
				}
			})
		}, then: undo, want: "/other"},
		{name: "another name is wanted", options: func(o *migrate.Options) { o.ToRelease = "another" }, then: goOn, want: "leave --to-release and --to-namespace out"},
		{name: "other values are wanted", options: func(o *migrate.Options) {
			o.Values = map[string]any{"collector": map[string]any{"replicas": 7}}
		}, then: goOn, want: "leave --set and --values out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := newNamespace(t)
			installOld(t, oldcharts.Metacollector, "old", ns, nil)
			o := forNamespace(t, ns)
			begun(t, ns, "install release", o)
			if tc.meanwhile != nil {
				tc.meanwhile(t, ns)
			}
			if tc.options != nil {
				tc.options(&o)
			}
			err := tc.then(t, o)
			switch {
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q", err, tc.want)
			case tc.want == "" && err != nil:
				t.Error(err)
			}
			state := &corev1.Secret{}
			err = api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "metawire-migration-old"}, state)
			if undone := apierrors.IsNotFound(err); undone != (tc.want == "") {
				t.Errorf("undone is %t: %v", undone, err)
			}
		})
	}
}

// manifestOf is what Helm has recorded for the old release; who uninstalls it needs
// that.
func manifestOf(t *testing.T, ns string) string {
	t.Helper()
	r, err := action.NewGet(helmIn(t, ns)).Run("old")
	if err != nil {
		t.Fatal(err)
	}
	return r.Manifest
}

func helmIn(t *testing.T, ns string) *action.Configuration {
	t.Helper()
	config, err := oldcharts.Helm(plane.Kubeconfig(), t.TempDir(), ns)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestMigrateAsks: the plan only logs in at the endpoint. Whether the cluster's id
// is another's is asked before anything is changed.
func TestMigrateAsks(t *testing.T) {
	ns := newNamespace(t)
	installOld(t, oldcharts.Firefly, "old", ns, map[string]any{"clusterId": "c", "accessKey": "k", "secretKey": "s", "apiEndpoint": "https://api.example"})
	o := forNamespace(t, ns)
	var asked []bool
	o.Endpoint = func(_ context.Context, e migrate.Endpoint) error {
		if asked = append(asked, e.Open); e.Open {
			return errors.New("409: the id is another cluster's")
		}
		return nil
	}
	m, _ := migrator(t, o)
	p := planOf(t, m)
	if len(p.Problems) > 0 || len(asked) != 1 || asked[0] {
		t.Fatalf("the plan asked %v, want a login; problems: %q", asked, p.Problems)
	}
	if _, err := m.Apply(t.Context(), p); !errors.Is(err, migrate.ErrProblems) || !strings.Contains(err.Error(), "409") {
		t.Errorf("got %v, want that nothing was changed, and why", err)
	}
	left := &corev1.SecretList{}
	if err := api.List(t.Context(), left, client.InNamespace(ns), client.HasLabels{"metawire.dev/migration"}); err != nil || len(left.Items) > 0 {
		t.Errorf("something was begun: %d Secrets, %v", len(left.Items), err)
	}
}

// TestMigrateBackInventory: on the way back a Job of the new release that never ends
// is ended, and the old CronJob goes on only when nobody else sends.
func TestMigrateBackInventory(t *testing.T) {
	ns := newNamespace(t)
	installOld(t, oldcharts.Firefly, "old", ns, map[string]any{"clusterId": "c", "accessKey": "k", "secretKey": "s", "apiEndpoint": "https://api.example"})
	o := forNamespace(t, ns)
	made := o.ToRelease + "-inventory"
	o.Tell = func(s migrate.Step) {
		if s.Ended || !strings.HasPrefix(s.Says, "send the inventory") {
			return
		}
		var c batchv1.CronJob // its schedule comes round; here no pod starts
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: made}, &c); err != nil {
			t.Error(err)
			return
		}
		create(t, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "by-schedule", OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(&c, batchv1.SchemeGroupVersion.WithKind("CronJob")),
		}}, Spec: c.Spec.JobTemplate.Spec})
	}
	m, _ := migrator(t, o)
	if _, err := m.Apply(t.Context(), planOf(t, m)); err == nil || !strings.Contains(err.Error(), "all is as it was") {
		t.Fatalf("got %v, want that all is as it was", err)
	}
	suspended := func(want bool) {
		t.Helper()
		var c batchv1.CronJob
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "old-cronjob"}, &c); err != nil || ptr.Deref(c.Spec.Suspend, false) != want {
			t.Errorf("the old CronJob is suspended: %v (%v), want %t", c.Spec.Suspend, err, want)
		}
	}
	suspended(false)

	// Once more; and meanwhile somebody makes the release anew, which sends.
	o.Tell = nil
	begun(t, ns, "send the inventory", o)
	values, err := action.NewGetValues(helmIn(t, ns)).Run(o.ToRelease)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := migraterelease.New(apiREST, ns, o.ToRelease)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Uninstall(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Install(t.Context(), values, nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	m, _ = migrator(t, o)
	old := migrate.OldRelease{Namespace: ns, Name: "old"}
	if _, err := m.RollBack(t.Context(), old); err == nil || !strings.Contains(err.Error(), "and two may not") {
		t.Errorf("got %v, want that two would send", err)
	}
	suspended(true)
	var c batchv1.CronJob
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: made}, &c); err != nil {
		t.Fatal(err)
	}
	c.Spec.Suspend = ptr.To(true)
	if err := api.Update(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	if came, err := m.RollBack(t.Context(), old); err != nil || !strings.Contains(came, "is left") {
		t.Errorf("got %q, %v, want that the other release is left", came, err)
	}
	suspended(false)
	credentials := &corev1.Secret{}
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: o.ToRelease + "-endpoint-credentials"}, credentials); err != nil {
		t.Errorf("what the release that is left logs in with is gone: %v", err)
	}
}

// TestMigrateLocked: while one migrates, another does not, and says who does.
func TestMigrateLocked(t *testing.T) {
	t.Parallel() // it waits for as long as one that was killed holds the Lease
	ns := newNamespace(t)
	installOld(t, oldcharts.Metacollector, "old", ns, nil)
	m, _ := migrator(t, forNamespace(t, ns))
	p := planOf(t, m)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "metawire-migration-old"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("a-colleague"), LeaseDurationSeconds: ptr.To[int32](15),
			AcquireTime: ptr.To(metav1.NowMicro()), RenewTime: ptr.To(metav1.NowMicro()),
		},
	}
	create(t, lease)
	holding, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { // as who goes on does
		defer close(ended)
		for tick := time.NewTicker(2 * time.Second); ; {
			select {
			case <-holding.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
			if err := api.Update(holding, lease); err != nil && holding.Err() == nil {
				t.Error(err)
			}
		}
	}()
	_, err := m.Apply(t.Context(), p)
	end()
	<-ended
	if !errors.Is(err, migrate.ErrProblems) || !strings.Contains(err.Error(), "a-colleague migrates release") {
		t.Errorf("got %v, want that a colleague migrates it", err)
	}
}

// TestMigrateOldVersion: an object that was installed as one of an API version that
// is not served any more is still the release's.
func TestMigrateOldVersion(t *testing.T) {
	ns := newNamespace(t)
	installOld(t, oldcharts.Firefly, "old", ns, map[string]any{"clusterId": "c", "accessKey": "k", "secretKey": "s", "apiEndpoint": "https://api.example"})
	helm := helmIn(t, ns)
	r, err := action.NewGet(helm).Run("old")
	if err != nil {
		t.Fatal(err)
	}
	now := r.Manifest
	r.Manifest = strings.Replace(now, "apiVersion: batch/v1\nkind: CronJob", "apiVersion: batch/v1beta1\nkind: CronJob", 1)
	if r.Manifest == now {
		t.Fatalf("there is no CronJob in the manifest:\n%s", now)
	}
	if err := helm.Releases.Update(r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // Helm itself could not uninstall it
		r.Manifest = now
		if err := helm.Releases.Update(r); err != nil {
			t.Error(err)
		}
	})
	m, _ := migrator(t, forNamespace(t, ns))
	p := planOf(t, m)
	if len(p.Problems) > 0 {
		t.Errorf("problems: %q", p.Problems)
	}
	want := migrate.Change{Action: migrate.Remove, Object: migrate.Object{APIVersion: "batch/v1", Kind: "CronJob", Namespace: ns, Name: "old-cronjob"}}
	if !slices.Contains(p.Objects, want) {
		t.Errorf("the CronJob is not removed: %v", p.Objects)
	}
}

// TestMigrateReads: what one record holds that cannot be read is no matter of the
// others; what Helm did not pack is read; and an upgrade that failed is told of.
func TestMigrateReads(t *testing.T) {
	ns := newNamespace(t)
	installOld(t, oldcharts.Metacollector, "old", ns, nil)
	manifest := manifestOf(t, ns)
	recorded(t, ns, "old", "k8s-metacollector", 2, release.StatusFailed, func(r *release.Release) { r.Manifest = manifest })
	record := func(name, data string) {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "sh.helm.release.v1." + name + ".v1", Labels: map[string]string{"owner": "helm", "name": name, "version": "1", "status": "deployed"}},
			StringData: map[string]string{"release": data},
		}
		create(t, s)
		t.Cleanup(func() {
			if err := api.Delete(context.Background(), s); err != nil {
				t.Error(err)
			}
		})
	}
	record("broken", "no record")
	recorded(t, ns, "history", "k8s-metacollector", 1, release.StatusUninstalled, nil)
	plain, err := json.Marshal(release.Release{Name: "plain", Manifest: "kind: none"})
	if err != nil {
		t.Fatal(err)
	}
	record("plain", base64.StdEncoding.EncodeToString(plain))
	o := forNamespace(t, ns)
	m, _ := migrator(t, o)
	if byHand := strings.Join(planOf(t, m).ByHand, "\n"); !strings.Contains(byHand, "Revision 2 of the old release, an upgrade, has failed") {
		t.Errorf("the plan does not tell that an upgrade failed: %q", byHand)
	}
	o.Release = "broken"
	m, _ = migrator(t, o)
	if _, err := m.Survey(t.Context()); err == nil || !strings.Contains(err.Error(), "no record of Helm's that can be read") {
		t.Errorf("the one that cannot be read was asked for: got %v", err)
	}
	o.Release = "plain"
	m, _ = migrator(t, o)
	if s, err := m.Survey(t.Context()); err != nil || len(s.Plans) > 0 {
		t.Errorf("got %v, %v, want nothing to do", s, err)
	}
}
