package migrate

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
