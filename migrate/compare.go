package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/migrate/values"
)

// render finds out what the new release will consist of.
func (d *drafter) render(ctx context.Context) error {
	var err error
	if d.made, err = d.release(d.plan.New); err != nil {
		return err
	}
	d.plan.New.Version = d.made.Version()
	manifest, tests, err := d.made.Render(ctx, d.state.Values)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		d.problem("%s", err)
		return nil
	}
	if d.will, err = d.objects.manifest(manifest, d.plan.New.Namespace); err != nil {
		return err
	}
	d.tests, err = d.objects.manifest(tests, d.plan.New.Namespace)
	return err
}

// compare says what is made, kept, changed and removed, and what the permissions
// were and will be.
func (d *drafter) compare(ctx context.Context) error {
	if err := d.creates(ctx); err != nil {
		return err
	}
	d.keeps()
	if err := d.serves(); err != nil {
		return err
	}
	if err := d.beside(ctx); err != nil {
		return err
	}
	for _, u := range d.had {
		o := named(u)
		if o == deref(d.state.Service) {
			continue
		}
		c := Change{Remove, o, ""}
		if why := stays(u); why != "" {
			c = Change{Keep, o, why}
		}
		d.plan.Objects = append(d.plan.Objects, c)
	}
	for _, u := range d.hooks {
		d.plan.Objects = append(d.plan.Objects, Change{Remove, named(u), "if a hook has left it; no hook is run"})
	}
	d.plan.Permissions = permissions(d.had, d.will)
	d.plan.Falco = d.falco()
	return nil
}

// creates tries what will be made, and notes it.
func (d *drafter) creates(ctx context.Context) error {
	_, err := d.api.CoreV1().Namespaces().Get(ctx, d.plan.New.Namespace, metav1.GetOptions{})
	d.fresh = apierrors.IsNotFound(err)
	switch {
	case d.fresh:
		d.plan.Objects = append(d.plan.Objects, Change{Create, Object{"v1", "Namespace", "", d.plan.New.Namespace}, "it stays when the release goes"})
	case err != nil && !apierrors.IsForbidden(err):
		return fmt.Errorf("look for namespace %q: %w", d.plan.New.Namespace, err)
	}
	for _, u := range d.will {
		o := named(u)
		now, err := d.objects.live(ctx, u)
		if err != nil && !apierrors.IsForbidden(err) {
			return err
		}
		switch {
		case now != nil:
			d.problem("%s is in the way: it is %s. Take another name: --to-release NAME", o, cmp.Or(prefixed("release ", owner(now)), "of no release of Helm's"))
		case d.fresh && o.Namespace != "": // nothing can be tried there
		default:
			if err := d.objects.create(ctx, u, true); err != nil {
				var unanswered *apierrors.StatusError
				if !errors.As(err, &unanswered) && !meta.IsNoMatchError(err) {
					return err
				}
				d.problem("the API server does not take what the new release needs: %s", err)
			}
		}
		d.plan.Objects = append(d.plan.Objects, Change{Create, o, ""})
	}
	if d.state.From != nil {
		d.plan.Objects = append(d.plan.Objects, Change{Create, *d.state.To, "a copy of " + d.state.From.String() + "; it stays when the release goes"})
	}
	return nil
}

// keeps notes what of the old goes on in another way.
func (d *drafter) keeps() {
	if d.state.Service != nil {
		s := *d.state.Service
		d.plan.Objects = append(d.plan.Objects, Change{Alter, s, "it leads to the new collectors from then on, and is nobody's until metawire migrate --finish removes it"})
		if s.Namespace != d.plan.New.Namespace {
			d.state.Relay = &Object{"v1", "Service", d.plan.New.Namespace, strings.ReplaceAll(d.plan.New.Name, ".", "-") + "-legacy"}
			d.plan.Objects = append(d.plan.Objects, Change{Create, *d.state.Relay, "the old Service points here, with its port, for a selector does not reach into another namespace"})
		}
	}
	if d.state.To != nil && d.state.From == nil {
		d.plan.Objects = append(d.plan.Objects, Change{Keep, *d.state.To, "the credentials, which are yours"})
	}
	d.plan.Objects = append(d.plan.Objects, Change{Create, Object{"v1", "Secret", d.old.Namespace, stateName(d.old.Name)}, "how far the migration is, and the backup"})
}

// beside looks whether what the migration makes besides the new release is there
// already, and somebody's.
func (d *drafter) beside(ctx context.Context) error {
	for _, o := range []*Object{d.state.copied(), d.state.Relay} {
		if o == nil {
			continue
		}
		now, err := d.objects.live(ctx, o.unstructured())
		if err != nil && !apierrors.IsForbidden(err) {
			return err
		}
		if now != nil && now.GetLabels()[migrationLabel] != d.old.Name {
			d.problem("%s is in the way: it is none that a migration has left. Take another name: --to-release NAME", o)
		}
	}
	return nil
}

// serves finds out whether who uses the old Service can be served through it.
func (d *drafter) serves() error {
	if d.state.Service == nil {
		return nil
	}
	on := func(otherwise bool, path ...string) bool {
		v, found, err := unstructured.NestedBool(d.state.Values, path...)
		return v || !found && otherwise || err != nil // what is no bool, the chart refuses
	}
	if !on(true, "stream", "enabled") || !on(false, "stream", "plaintext", "enabled") {
		d.problem("who uses %s comes without TLS, and the values given here switch that off (stream.enabled, stream.plaintext.enabled): leave it on until nobody uses it and metawire migrate --finish has removed it", d.state.Service)
	}
	s, err := as[corev1.Service](d.find(d.state.Service))
	if err != nil {
		return err
	}
	kind := string(s.Spec.Type)
	switch {
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		kind = "headless"
	case len(s.Spec.ExternalIPs) > 0:
		kind = "with externalIPs"
	case s.Spec.Type == corev1.ServiceTypeClusterIP, s.Spec.Type == "":
		return nil
	}
	if d.state.Relay != nil {
		d.problem("%s (%s) cannot lead into another namespace, to which it would become a name: leave --to-namespace out", d.state.Service, kind)
	}
	return nil
}

// falco says what happens to Falco pods that run.
func (d *drafter) falco() []string {
	if d.state.Deployment == nil || d.plan.Old.Chart != values.Metacollector {
		return nil
	}
	if d.state.Service == nil {
		return []string{"The old release has no Service, so what leads Falco to it is not known: Falco pods that use it lose their metadata when it goes."}
	}
	s := d.state.Service
	return []string{
		fmt.Sprintf("Falco pods that run keep their configuration: they go on connecting to %s.%s, which leads to the new collectors (without TLS, as before) when these run. Their streams end once, when the old collector ends, and they connect again by themselves.", s.Name, s.Namespace),
		"The old collector gave every node's metadata to anybody. The new ones give a node's to Falco pods of that node; who is refused then is counted (metawire check), and the migration goes back if anybody is.",
		"Falco pods that are made from now on are wired by the webhook, unless their configuration names a collector: take collectorHostname out of Falco's values when you can, and run metawire migrate --finish when nobody uses the old Service.",
	}
}
