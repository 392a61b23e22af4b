package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// ErrNothing says that there is no migration to undo.
var ErrNothing = errors.New("there is no migration to undo")

// RollBack undoes a migration, be it done or interrupted, and blocks until it is:
// first the old release works again, from the backup, then the new one goes. What
// happened to the old release's objects after the backup is not in it.
func (m *Migrator) RollBack(ctx context.Context, old OldRelease) error {
	all, err := states(ctx, m.api, old.Namespace)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Plan.Old.Name != old.Name {
			continue
		}
		return m.locked(ctx, s.Plan.Old, func(ctx context.Context) error {
			r := &run{m, s}
			if err := r.refresh(ctx); err != nil {
				return err
			}
			return r.rollBack(ctx)
		})
	}
	return fmt.Errorf("%w: release %s", ErrNothing, old)
}

// rollBack can be done again, whole, after it was interrupted anywhere.
func (r *run) rollBack(ctx context.Context) error {
	if r.state.Phase != phaseRollBack {
		if err := r.state.enter(ctx, r.api, phaseRollBack); err != nil {
			return err
		}
	}
	b, err := r.state.backup()
	if err != nil {
		return err
	}
	old, made := r.state.Plan.Old, r.state.Plan.New
	for _, s := range []struct {
		says string
		do   func(context.Context) error
	}{
		{fmt.Sprintf("bring back release %s", old), func(ctx context.Context) error { return r.restore(ctx, b) }},
		{"wait until it is ready", func(ctx context.Context) error { return r.ready(ctx, b) }},
		{"lead the old Service back", func(ctx context.Context) error { return r.turnBack(ctx, b) }},
		{fmt.Sprintf("remove release %s", made), r.withdraw},
	} {
		if err := r.step(ctx, old, r.patience(), s.says, func(ctx context.Context) ([]string, error) { return nil, s.do(ctx) }); err != nil {
			return err
		}
	}
	return r.state.forget(ctx, r.api)
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
		if err := r.namespace(ctx, u.GetNamespace()); u.GetNamespace() != "" && err != nil {
			return err
		}
		if err := r.objects.create(ctx, portable(u), false); err != nil {
			return err
		}
	}
	for o, field := range map[*Object]string{r.state.CronJob: "suspend", r.state.Deployment: "replicas"} {
		was := b.find(o)
		if was == nil {
			continue
		}
		if err := r.objects.change(ctx, was, func(now *unstructured.Unstructured) error {
			value, found, err := unstructured.NestedFieldCopy(was.Object, "spec", field)
			if err != nil || !found {
				unstructured.RemoveNestedField(now.Object, "spec", field)
				return err
			}
			return unstructured.SetNestedField(now.Object, value, "spec", field)
		}); err != nil {
			return err
		}
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

// ready waits for the old collectors.
func (r *run) ready(ctx context.Context, b *backup) error {
	was := b.find(r.state.Deployment)
	if was == nil {
		return nil
	}
	return until(ctx, named(was).String()+" is ready", func(ctx context.Context) (bool, error) {
		u, err := r.objects.live(ctx, was)
		if err != nil || u == nil {
			return false, err
		}
		d, err := as[appsv1.Deployment](u)
		if err != nil {
			return false, err
		}
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		return d.Status.ObservedGeneration >= d.Generation && d.Status.ReadyReplicas >= want, nil
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
		for _, field := range []string{"selector", "ports", "type", "externalName"} {
			value, found, err := unstructured.NestedFieldCopy(back.Object, "spec", field)
			if err != nil {
				return err
			}
			if !found {
				unstructured.RemoveNestedField(now.Object, "spec", field)
				continue
			}
			if err := unstructured.SetNestedField(now.Object, value, "spec", field); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	service, err := as[corev1.Service](was)
	if err != nil {
		return err
	}
	if r.state.Deployment == nil || len(service.Spec.Selector) == 0 {
		return nil
	}
	if replicas, _, _ := unstructured.NestedInt64(b.find(r.state.Deployment).Object, "spec", "replicas"); replicas == 0 {
		return nil // it led nowhere
	}
	if err := until(ctx, named(was).String()+" leads to an old collector that is ready", func(ctx context.Context) (bool, error) {
		return r.leads(ctx, named(was), service.Spec.Selector)
	}); err != nil {
		return err
	}
	return sleep(ctx, r.known())
}

// withdraw removes the new release, and what the migration made beside it.
func (r *run) withdraw(ctx context.Context) error {
	made, err := r.release(r.state.Plan.New)
	if err != nil {
		return err
	}
	status, labels, err := made.Status()
	if err != nil {
		return err
	}
	if status != "" && labels[releaseLabel] == r.state.mark() {
		if err := made.Uninstall(ctx, r.patience()); err != nil {
			return err
		}
	}
	for _, o := range []*Object{r.state.Relay, r.state.copied()} {
		if o == nil {
			continue
		}
		if err := r.objects.remove(ctx, o.unstructured()); err != nil {
			return err
		}
	}
	return nil
}

// copied is the Secret that the migration made, nil if it made none.
func (s *state) copied() *Object {
	if s.From == nil {
		return nil
	}
	return s.To
}
