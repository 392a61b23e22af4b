package migrate

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/migrate/release"
)

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
