package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/migrate/release"
)

// ErrNothing says that there is no migration to undo.
var ErrNothing = errors.New("there is no migration to undo")

// RollBack undoes a migration, be it done or interrupted, and blocks until it is:
// first the old release works again, from the backup, then the new one goes; an
// inventory the other way round, for two that send for one cluster are more than
// its service understands. What happened to the old release's objects after the
// backup is not in it. It says in words what has come of it.
func (m *Migrator) RollBack(ctx context.Context, old OldRelease) (came string, err error) {
	all, err := states(ctx, m.api, old.Namespace)
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if s.Plan.Old.Name != old.Name {
			continue
		}
		err = m.locked(ctx, s.Plan.Old, func(ctx context.Context) error {
			r := &run{m, s}
			if err := r.refresh(ctx); err != nil {
				return err
			}
			came, err = r.rollBack(ctx)
			return err
		})
		return came, err
	}
	return "", fmt.Errorf("%w: release %s", ErrNothing, old)
}

// rollBack can be done again, whole, after it was interrupted anywhere.
func (r *run) rollBack(ctx context.Context) (came string, err error) {
	b, err := r.state.backup()
	if err != nil {
		return "", err
	}
	upgraded, err := r.vacant(ctx, b)
	if err != nil {
		return "", err
	}
	if r.state.Phase != PhaseRollBack {
		if err := r.state.enter(ctx, r.api, PhaseRollBack); err != nil {
			return "", err
		}
	}
	old, made := r.state.Plan.Old, r.state.Plan.New
	came = fmt.Sprintf("release %s is back, and Metawire's release %s is gone", old, made)
	sends, moved := r.state.CronJob != nil, r.state.HandedOver
	for _, s := range []struct {
		concerns bool
		says     string
		do       func(context.Context) error
	}{
		{sends, fmt.Sprintf("let release %s send no more", made), r.hush},
		{true, fmt.Sprintf("bring back release %s", old), func(ctx context.Context) error {
			if upgraded > 0 { // what is there is what was wanted since
				return r.scaleBack(ctx, b)
			}
			return r.restore(ctx, b)
		}},
		{moved, "wait until it is ready", func(ctx context.Context) error { return r.ready(ctx, b) }},
		{moved, "lead the old Service back", func(ctx context.Context) error { return r.turnBack(ctx, b) }},
		{true, fmt.Sprintf("remove release %s", made), func(ctx context.Context) error {
			gone, err := r.withdraw(ctx)
			if !gone {
				came = fmt.Sprintf("release %s is back; release %s is not the one that the migration made, and is left", old, made)
			}
			return err
		}},
		{sends, "let the old CronJob make Jobs again", func(ctx context.Context) error { return r.asItWas(ctx, b, r.state.CronJob, "suspend") }},
	} {
		if !s.concerns {
			continue
		}
		if err := r.step(ctx, old, r.patience(), s.says, func(ctx context.Context) ([]string, error) { return nil, s.do(ctx) }); err != nil {
			return "", err
		}
	}
	return came, r.state.forget(ctx, r.api)
}

// vacant is an error if what would be brought back is somebody else's by now: a
// release of that name that was installed since, or one that took an object; or if
// somebody else's release sends the inventory. It returns to which revision the old
// release was upgraded since, 0 if it was not.
func (r *run) vacant(ctx context.Context, b *backup) (upgraded int, err error) {
	old := r.state.Plan.Old
	now, err := r.same(ctx, b)
	if err != nil {
		return 0, err
	}
	for _, u := range b.Objects {
		live, err := r.objects.live(ctx, u)
		if err != nil {
			return 0, err
		}
		if live == nil {
			continue
		}
		if who := owner(live); who != old.String() && live.GetLabels()[legacyLabel] != old.Name {
			return 0, fmt.Errorf("%s, which would be brought back, is there, and of %s", named(u), cmp.Or(prefixed("release ", who), "no release of Helm's"))
		}
	}
	return b.upgraded(now), r.alone(ctx)
}

// alone is an error if a release of the new one's name, which this migration did
// not make and so does not remove, sends for the cluster: two would.
func (r *run) alone(ctx context.Context) error {
	_, status, ours, err := r.newRelease()
	if err != nil || ours || status == "" || r.state.CronJob == nil {
		return err
	}
	all, err := r.newCronJobs(ctx)
	for _, c := range all {
		if c.Spec.Suspend == nil || !*c.Spec.Suspend {
			return fmt.Errorf("release %s, which this migration did not make, sends the inventory (CronJob %s/%s), and two may not: uninstall it first, or suspend that CronJob", r.state.Plan.New, c.Namespace, c.Name)
		}
	}
	return err
}

// patience is how long a step of the way back may take: not less because the way
// there was given little.
func (r *run) patience() time.Duration { return max(r.options.Timeout, defaultTimeout) }

// restore makes what is gone, and what was changed as it was.
func (r *run) restore(ctx context.Context, b *backup) error {
	for _, u := range b.Objects {
		if named(u) == deref(r.state.Service) {
			continue // last: it leads to what is not ready yet
		}
		if ns := u.GetNamespace(); ns != "" {
			if err := r.namespace(ctx, ns); err != nil {
				return err
			}
		}
		made := portable(u)
		if named(u) == deref(r.state.CronJob) { // until the new one is gone
			if err := unstructured.SetNestedField(made.Object, true, "spec", "suspend"); err != nil {
				return err
			}
		}
		if err := r.objects.create(ctx, made, false); err != nil {
			return err
		}
	}
	if err := r.scaleBack(ctx, b); err != nil {
		return err
	}
	for _, s := range b.Records {
		s.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels, Annotations: s.Annotations}
		_, err := r.api.CoreV1().Secrets(s.Namespace).Create(ctx, &s, metav1.CreateOptions{FieldManager: manager})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create Secret %s/%s: %w", s.Namespace, s.Name, err)
		}
	}
	return nil
}

// scaleBack gives the old collectors the replicas that they had.
func (r *run) scaleBack(ctx context.Context, b *backup) error {
	if !r.state.HandedOver {
		return nil
	}
	return r.asItWas(ctx, b, r.state.Deployment, "replicas")
}

// asItWas gives a field of an object's spec the value that it had.
func (r *run) asItWas(ctx context.Context, b *backup, o *Object, field string) error {
	was := b.find(o)
	if was == nil {
		return nil
	}
	return r.objects.change(ctx, was, func(now *unstructured.Unstructured) error {
		value, found, err := unstructured.NestedFieldCopy(was.Object, "spec", field)
		if err != nil || !found {
			unstructured.RemoveNestedField(now.Object, "spec", field)
			return err
		}
		return unstructured.SetNestedField(now.Object, value, "spec", field)
	})
}

// readyOnes is how many of the old collectors were ready when they were backed up.
func (r *run) readyOnes(b *backup) int64 {
	was := b.find(r.state.Deployment)
	if was == nil {
		return 0
	}
	n, _, _ := unstructured.NestedInt64(was.Object, "status", "readyReplicas")
	return n
}

// ready waits until as many of the old collectors are ready as there were.
func (r *run) ready(ctx context.Context, b *backup) error {
	want := r.readyOnes(b)
	if want == 0 {
		return nil
	}
	return until(ctx, fmt.Sprintf("%d of %s are ready", want, r.state.Deployment), func(ctx context.Context) (bool, error) {
		u, err := r.objects.live(ctx, r.state.Deployment.unstructured())
		if err != nil || u == nil {
			return false, err
		}
		d, err := as[appsv1.Deployment](u)
		if err != nil {
			return false, err
		}
		return d.Status.ObservedGeneration >= d.Generation && int64(d.Status.ReadyReplicas) >= want, nil
	})
}

// turnBack leads the old Service to the old collectors, and makes it their
// release's again.
func (r *run) turnBack(ctx context.Context, b *backup) error {
	was := b.find(r.state.Service)
	if was == nil {
		return nil
	}
	if err := r.objects.create(ctx, portable(was), false); err != nil { // if it was removed
		return err
	}
	err := r.objects.change(ctx, was, func(now *unstructured.Unstructured) error {
		back := portable(was)
		now.SetLabels(back.GetLabels())
		now.SetAnnotations(back.GetAnnotations())
		spec, _, err := unstructured.NestedMap(back.Object, "spec")
		if err != nil {
			return err
		}
		for _, field := range addressFields() { // which it keeps
			if value, found, _ := unstructured.NestedFieldCopy(now.Object, "spec", field); found {
				spec[field] = value
			}
		}
		return unstructured.SetNestedMap(now.Object, spec, "spec")
	})
	if err != nil {
		return err
	}
	service, err := as[corev1.Service](was)
	if err != nil {
		return err
	}
	if r.readyOnes(b) == 0 || len(service.Spec.Selector) == 0 {
		return nil // it led nowhere
	}
	if err := until(ctx, named(was).String()+" leads to an old collector that is ready", func(ctx context.Context) (bool, error) {
		return r.leads(ctx, named(was), service.Spec.Selector)
	}); err != nil {
		return err
	}
	return sleep(ctx, r.known())
}

// withdraw removes the new release, and what the migration made beside it. A
// release that it did not make is left: then gone is false.
func (r *run) withdraw(ctx context.Context) (gone bool, err error) {
	made, status, ours, err := r.newRelease()
	if err != nil {
		return false, err
	}
	if ours {
		err = made.Uninstall(ctx, r.patience())
	}
	if gone = ours || status == ""; err != nil || !gone { // what is left may use what is beside it
		return gone, err
	}
	for _, o := range []*Object{r.state.Relay, r.state.copied()} {
		if o == nil {
			continue
		}
		now, err := r.objects.live(ctx, o.unstructured())
		if err != nil {
			return gone, err
		}
		if now == nil || now.GetLabels()[releaseLabel] != r.state.mark() {
			continue // gone, or somebody's
		}
		if err := r.objects.remove(ctx, now); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// newRelease is the new release with its status, empty if it is not there; ours
// if this migration made it.
func (r *run) newRelease() (made *release.Release, status string, ours bool, err error) {
	if made, err = r.release(r.state.Plan.New); err != nil {
		return nil, "", false, err
	}
	status, labels, err := made.Status()
	return made, status, status != "" && labels[releaseLabel] == r.state.mark(), err
}

// newCronJobs are those of the release of the new one's name.
func (r *run) newCronJobs(ctx context.Context) ([]batchv1.CronJob, error) {
	n := r.state.Plan.New
	made, err := installation.At(r.config, n.Namespace, n.Name)
	if err != nil {
		return nil, err
	}
	list, err := r.api.BatchV1().CronJobs(n.Namespace).List(ctx, made.Only(installation.Inventory))
	if err != nil {
		return nil, fmt.Errorf("look for the CronJob of release %s: %w", n, err)
	}
	return list.Items, nil
}

// hush suspends the CronJob of the new release, if there is one, and ends the Job
// that runs. It is not waited for: its pod may never start, and a run that is cut
// off deletes nothing at the service.
func (r *run) hush(ctx context.Context) error {
	if _, _, ours, err := r.newRelease(); err != nil || !ours {
		return err
	}
	all, err := r.newCronJobs(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		o := Object{batchv1.SchemeGroupVersion.String(), "CronJob", c.Namespace, c.Name}
		if err := r.suspend(ctx, &o); err != nil {
			return err
		}
		jobs, err := r.unfinished(ctx, &o)
		if err != nil {
			return err
		}
		for _, job := range jobs {
			if err := r.end(ctx, job); err != nil {
				return err
			}
		}
	}
	return nil
}

// end deletes a Job, and waits until no pod of it is left.
func (r *run) end(ctx context.Context, job Object) error {
	background := metav1.DeletePropagationBackground
	err := r.api.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{PropagationPolicy: &background})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", job, err)
	}
	return until(ctx, "no pod of "+job.String()+" is left", func(ctx context.Context) (bool, error) {
		pods, err := r.api.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job.Name})
		return err == nil && len(pods.Items) == 0, err
	})
}

// copied is the Secret that the migration made, nil if it made none.
func (s *state) copied() *Object {
	if s.From == nil {
		return nil
	}
	return s.To
}
