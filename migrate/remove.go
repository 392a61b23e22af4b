package migrate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/migrate/release"
)

// find returns the object as it was, nil if there was none.
func (b *backup) find(o *Object) *unstructured.Unstructured {
	i := slices.IndexFunc(b.Objects, func(u *unstructured.Unstructured) bool { return o != nil && named(u) == *o })
	if i < 0 {
		return nil
	}
	return b.Objects[i]
}

// lookAgain sees, before anything is removed, that what is left then does the
// work: since that was seen, days may have passed.
func (r *run) lookAgain(ctx context.Context) error {
	says := fmt.Sprintf("see that release %s works, and that %s is what was backed up", r.state.Plan.New, r.state.Plan.Old)
	return r.do(ctx, says, func(ctx context.Context) ([]string, error) {
		if err := r.unchanged(ctx); err != nil {
			return nil, err
		}
		return nil, r.works(ctx)
	})
}

// unchanged is an error if the old release is another than was backed up, or was
// upgraded since. Of upgrades that failed there is nothing to lose.
func (r *run) unchanged(ctx context.Context) error {
	b, err := r.state.backup()
	if err != nil {
		return err
	}
	old := r.state.Plan.Old
	now, err := r.same(ctx, b)
	switch {
	case err != nil:
		return err
	case len(now) == 0 && r.state.Phase != phaseRemove:
		return fmt.Errorf("release %s was uninstalled since its migration began: bring it back (--rollback), or forget the migration: kubectl -n %s delete secret %s", old, old.Namespace, stateName(old.Name))
	}
	if n := b.upgraded(now); n > 0 {
		return fmt.Errorf("release %s was upgraded since its migration began, to revision %d, of which the new release knows nothing: undo the migration (--rollback, which leaves the old release as it is now), and begin anew", old, n)
	}
	return nil
}

// same returns Helm's records of the old release as they are now. That they are of
// another release, installed since under the same name, is an error.
func (r *run) same(ctx context.Context, b *backup) ([]corev1.Secret, error) {
	old := r.state.Plan.Old
	now, err := r.records.All(ctx, old.Namespace, old.Name)
	if err != nil {
		return nil, err
	}
	born, err := release.Born(b.Records[len(b.Records)-1])
	if err != nil {
		return nil, err
	}
	for _, record := range now {
		at, err := release.Born(record)
		if err != nil {
			return nil, err
		}
		if !at.Equal(born) {
			return nil, fmt.Errorf("another release %s was installed since, at %s: what was backed up is the one before, and this one is left alone; to go back to the one before, uninstall this one first", old, at.Format(time.DateTime))
		}
	}
	return now, nil
}

// upgraded is the revision that a release has reached since it was backed up, 0 if
// none. Upgrades that failed do not count.
func (b *backup) upgraded(now []corev1.Secret) int {
	for _, record := range slices.Backward(now) {
		if n := release.Revision(record); n > b.newest() && record.Labels["status"] != "failed" {
			return n
		}
	}
	return 0
}

// newest is the last revision that was backed up.
func (b *backup) newest() int {
	n := 0
	for _, record := range b.Records {
		n = max(n, release.Revision(record))
	}
	return n
}

// works is an error if the new release does not do what the old one did.
func (r *run) works(ctx context.Context) error {
	n := r.state.Plan.New
	_, status, ours, err := r.newRelease()
	switch {
	case err != nil:
		return err
	case status != "deployed":
		return fmt.Errorf("release %s is %s, want deployed: helm status %s -n %s", n, cmp.Or(status, "not there"), n.Name, n.Namespace)
	case !ours:
		return fmt.Errorf("release %s is another than this migration made", n)
	}
	switch {
	case r.state.Service != nil:
		return r.leadsOver(ctx)
	case r.state.CronJob != nil:
		return r.sendsAlone(ctx)
	}
	_, err = r.refusals(ctx) // it asks collectors that are ready
	return err
}

// leadsOver is an error if the old Service does not lead to the new collectors.
func (r *run) leadsOver(ctx context.Context) error {
	s := r.state.Service
	now, err := r.objects.live(ctx, s.unstructured())
	if err != nil {
		return err
	}
	if now == nil || now.GetLabels()[legacyLabel] != r.state.Plan.Old.Name {
		return fmt.Errorf("%s is gone, or does not lead to release %s any more", s, r.state.Plan.New)
	}
	ours, err := r.collectorService(ctx)
	if err != nil {
		return err
	}
	leads := s
	if r.state.Relay != nil {
		leads = r.state.Relay
	}
	ok, err := r.leads(ctx, *leads, ours.Spec.Selector)
	if err == nil && !ok {
		err = fmt.Errorf("%s leads to no collector that is ready: metawire check says why", leads)
	}
	return err
}

// sendsAlone is an error if the new CronJob does not send, or the old one does.
func (r *run) sendsAlone(ctx context.Context) error {
	made, err := installation.At(r.config, r.state.Plan.New.Namespace, r.state.Plan.New.Name)
	if err != nil {
		return err
	}
	sender, err := made.Sender(ctx)
	if err != nil {
		return err
	}
	if c := sender.CronJob; c == nil || c.Spec.Suspend != nil && *c.Spec.Suspend {
		return fmt.Errorf("release %s has no CronJob, or a suspended one: it sends nothing", r.state.Plan.New)
	}
	old, err := r.objects.live(ctx, r.state.CronJob.unstructured())
	if err != nil || old == nil {
		return err
	}
	if suspended, _, _ := unstructured.NestedBool(old.Object, "spec", "suspend"); !suspended {
		return fmt.Errorf("%s is not suspended any more, so two send for one cluster: kubectl -n %s patch cronjob %s -p '{\"spec\":{\"suspend\":true}}'", r.state.CronJob, old.GetNamespace(), old.GetName())
	}
	return nil
}

// remove removes the objects of the old release one by one, and then Helm's
// records of it. Helm itself would run the hook that signs the cluster off at its
// service, and delete the Service that goes on.
func (r *run) remove(ctx context.Context) error {
	b, err := r.state.backup()
	if err != nil {
		return err
	}
	err = r.do(ctx, fmt.Sprintf("remove the objects of release %s", r.state.Plan.Old), func(ctx context.Context) ([]string, error) {
		return nil, r.removeObjects(ctx, b)
	})
	if err != nil {
		return err
	}
	return r.do(ctx, fmt.Sprintf("remove Helm's records of release %s", r.state.Plan.Old), func(ctx context.Context) ([]string, error) {
		return nil, r.removeRecords(ctx, b)
	})
}

// removeObjects deletes, in the opposite order of their making, what is still the
// release's; what its hooks have left too.
func (r *run) removeObjects(ctx context.Context, b *backup) error {
	for _, u := range slices.Backward(b.Objects) {
		if named(u) == deref(r.state.Service) || stays(u) != "" {
			continue
		}
		now, err := r.objects.live(ctx, u)
		if err != nil {
			return err
		}
		if now == nil || owner(now) != r.state.Plan.Old.String() {
			continue
		}
		if err := r.objects.remove(ctx, u); err != nil {
			return err
		}
	}
	for _, u := range b.Hooks {
		now, err := r.objects.live(ctx, u)
		if err != nil {
			return err
		}
		if now == nil || now.GetAnnotations()["helm.sh/hook"] == "" {
			continue
		}
		if err := r.objects.remove(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// removeRecords deletes those of the release that was backed up.
func (r *run) removeRecords(ctx context.Context, b *backup) error {
	all, err := r.same(ctx, b)
	if err != nil {
		return err
	}
	if n := b.upgraded(all); n > 0 {
		return fmt.Errorf("release %s was upgraded meanwhile: the records from revision %d on are kept", r.state.Plan.Old, n)
	}
	for _, s := range slices.Backward(all) {
		err := r.api.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete Secret %s/%s: %w", s.Namespace, s.Name, err)
		}
	}
	return nil
}

// unused looks for a while who comes without TLS: one that is between two streams
// is seen so. It returns the first number that is not 0. A release that is gone
// has nobody.
func (r *run) unused(ctx context.Context) (float64, error) {
	if _, status, _, err := r.newRelease(); err != nil || status == "" {
		return 0, err
	}
	for range 5 {
		n, err := r.subscribers(ctx, r.state.Plan.New)
		if err != nil || n > 0 {
			return n, err
		}
		if err := sleep(ctx, 2*time.Second); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// Finish removes the old Service of a migration that has ended, when nobody uses
// it any more.
func (m *Migrator) Finish(ctx context.Context, d Done) error {
	if d.Service == nil {
		return nil
	}
	return m.locked(ctx, d.Old, func(ctx context.Context) error {
		r := &run{m, d.state}
		if err := r.refresh(ctx); err != nil {
			return err
		}
		if r.state.Phase != phaseDone {
			return fmt.Errorf("the migration of release %s is being undone: run it again with --rollback", d.Old)
		}
		err := r.do(ctx, "see that nobody uses "+d.Service.String(), func(ctx context.Context) ([]string, error) {
			n, err := r.unused(ctx)
			if err == nil && n > 0 {
				err = fmt.Errorf("%v subscribers still come without TLS, as over %s: take collectorHostname out of Falco's values and let its pods be made anew (metawire check names those that are not wired), then run it again", n, d.Service)
			}
			return nil, err
		})
		if err != nil {
			return err
		}
		return r.do(ctx, "remove "+d.Service.String(), func(ctx context.Context) ([]string, error) {
			for _, o := range []*Object{r.state.Service, r.state.Relay} {
				if o == nil {
					continue
				}
				now, err := r.objects.live(ctx, o.unstructured())
				if err != nil {
					return nil, err
				}
				if now == nil || now.GetLabels()[legacyLabel] != d.Old.Name {
					continue // gone, or somebody's
				}
				if err := r.objects.remove(ctx, now); err != nil {
					return nil, err
				}
			}
			r.state.Service, r.state.Relay = nil, nil
			return []string{"the listener without TLS can go too: helm upgrade with stream.plaintext.enabled=false"}, r.state.enter(ctx, r.api, phaseDone)
		})
	})
}
