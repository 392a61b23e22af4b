package migrate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/migrate/release"
	"github.com/metawire/metawire/migrate/values"
)

// drafter makes the plan for one old release.
type drafter struct {
	*Migrator
	plan *Plan
	old  *release.Old
	// had are the objects of the release as they are now, and hooks those that its
	// hooks may have left.
	had, hooks []*unstructured.Unstructured
	state      state
	made       *release.Release
	will       []*unstructured.Unstructured // what the new release will have
	tests      []*unstructured.Unstructured // what helm test makes of it
	endpoint   *Endpoint                    // of an inventory
	suspended  bool                         // the old CronJob is, before anything was done
	fresh      bool                         // the namespace of the new release is not there yet
}

// problem adds a reason why nothing is done.
func (d *drafter) problem(format string, args ...any) {
	d.plan.Problems = append(d.plan.Problems, fmt.Sprintf(format, args...))
}

// draft plans for a release of an old chart. What a person has to mend is a
// problem in the plan; the error is of what could not be read.
func (m *Migrator) draft(ctx context.Context, h release.Head, taken map[string]string) (*Plan, error) {
	d := &drafter{Migrator: m, plan: planOf(h)}
	if h.Unsettled != "" {
		d.problem("release %s is %s: Helm is at work, or was interrupted. See helm status %s -n %s; a revision that works is brought back with helm rollback %s -n %s",
			h, h.Unsettled, h.Name, h.Namespace, h.Name, h.Namespace)
		return d.plan, nil
	}
	var err error
	if d.old, err = m.records.Get(ctx, h); err != nil {
		return nil, err
	}
	if h.Failed > 0 {
		d.plan.ByHand = append(d.plan.ByHand, fmt.Sprintf("Revision %d of the old release, an upgrade, has failed: the values are those of revision %d. What it changed before it failed is in the objects.", h.Failed, h.Revision))
	}
	d.name(taken)
	for _, do := range []func(context.Context) error{d.observe, d.translate, d.render, d.compare, d.preflight} {
		if err := do(ctx); err != nil {
			return nil, fmt.Errorf("release %s: %w", h, err)
		}
	}
	d.state.Plan = d.plan
	d.plan.Steps = d.state.steps("")
	d.plan.draft = &draftState{state: d.state, backup: backup{Objects: d.had, Hooks: d.hooks}, endpoint: d.endpoint}
	return d.plan, nil
}

// name decides how the new release is called, and where it will be.
func (d *drafter) name(taken map[string]string) {
	space, _ := d.old.User["namespaceOverride"].(string)
	n := NewRelease{Namespace: cmp.Or(d.options.ToNamespace, space, d.old.Namespace), Name: cmp.Or(d.options.ToRelease, metawireChart)}
	if d.options.ToRelease == "" && (taken[n.Name] != "" || d.old.Name == n.Name) {
		n.Name += "-" + d.old.Name
	}
	if len(n.Name) > maxName {
		d.problem("the new release would be %s, and Helm takes names of %d letters: give a shorter one: --to-release NAME", n.Name, maxName)
	}
	if who := taken[n.Name]; who != "" {
		d.problem("a release %s of Metawire is there already: take another name: --to-release NAME", who)
	}
	d.plan.New = n
}

// maxName is the longest name of a release.
const maxName = 53

// observe reads what the release has in the cluster, and who looks after it.
func (d *drafter) observe(ctx context.Context) error {
	stored, err := d.objects.manifest(d.old.Manifest, d.old.Namespace)
	if err != nil {
		return err
	}
	keepers := map[string]Object{}
	for _, s := range stored {
		now, err := d.objects.live(ctx, s)
		if err != nil {
			return err
		}
		if now == nil {
			continue
		}
		if who := owner(now); who != d.old.String() {
			d.plan.Objects = append(d.plan.Objects, Change{Keep, named(now), "it is not this release's any more, but " + cmp.Or(who, "nobody's that Helm knows")})
			continue
		}
		if who := managedBy(now.GetLabels(), now.GetAnnotations()); who != "" {
			keepers[who] = named(now)
		}
		d.had = append(d.had, now)
		d.recognize(now)
	}
	switch {
	case d.old.Chart == values.Metacollector && d.state.Deployment == nil:
		d.problem("release %s has no Deployment in the cluster any more, so there is nothing to take over: helm uninstall %s -n %s, and helm install metawire", d.old, d.old.Name, d.old.Namespace)
	case d.old.Chart != values.Metacollector && d.state.CronJob == nil:
		d.problem("release %s has no CronJob in the cluster any more, so what it sends to is not known: helm uninstall --no-hooks %s -n %s, and helm install metawire", d.old, d.old.Name, d.old.Namespace)
	}
	for who, what := range keepers {
		d.problem("release %s is managed by %s (%s says so), which would bring back what is removed here: install Metawire there, beside the old chart, and take the old chart out when it runs (docs/migrate.md has the steps)", d.old, who, what)
	}
	for _, h := range d.old.Hooks {
		left, err := d.objects.manifest(h.Manifest, d.old.Namespace)
		if err != nil {
			return err
		}
		d.hooks = append(d.hooks, left...)
	}
	return nil
}

// owner is the release that an object belongs to.
func owner(u *unstructured.Unstructured) string {
	a := u.GetAnnotations()
	if a["meta.helm.sh/release-name"] == "" {
		return ""
	}
	return a["meta.helm.sh/release-namespace"] + "/" + a["meta.helm.sh/release-name"]
}

// recognize notes the objects that are treated in a way of their own.
func (d *drafter) recognize(u *unstructured.Unstructured) {
	o := named(u)
	switch o.Kind {
	case "Service":
		d.state.Service = &o
	case "Deployment":
		d.state.Deployment = &o
	case "CronJob":
		d.state.CronJob = &o
	}
}

// find returns the object that the release has, or nil.
func (d *drafter) find(o *Object) *unstructured.Unstructured {
	i := slices.IndexFunc(d.had, func(u *unstructured.Unstructured) bool { return o != nil && named(u) == *o })
	if i < 0 {
		return nil
	}
	return d.had[i]
}

// as converts an object into its type.
func as[T any](u *unstructured.Unstructured) (*T, error) {
	into := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into); err != nil {
		return nil, fmt.Errorf("read %s: %w", named(u), err)
	}
	return into, nil
}

// translate makes values for the new release.
func (d *drafter) translate(ctx context.Context) error {
	r := values.Release{
		Name: d.old.Name, Namespace: d.old.Namespace, Chart: d.old.Chart, Version: d.old.Version,
		Defaults: d.old.Defaults, User: d.old.User,
	}
	if d.state.CronJob != nil {
		if err := d.inventory(ctx, &r); err != nil {
			return err
		}
	}
	t, err := values.Translate(r)
	if err != nil {
		return err
	}
	var unknown []string
	for _, n := range t.Notes {
		if n.Outcome == values.Unknown {
			unknown = append(unknown, n.Key+": "+n.Reason)
		}
	}
	if len(unknown) > 0 && !d.options.AllowUnknown {
		d.problem("what these values mean is not known; leave them out with --allow-unknown:\n  %s", strings.Join(unknown, "\n  "))
	}
	d.state.Values = merge(t.Values, d.options.Values)
	d.plan.Values, d.plan.NewValues = t.Notes, hide(d.state.Values)
	d.plan.ByHand = append(d.plan.ByHand, t.Hand...)
	if d.suspended {
		d.plan.ByHand = append(d.plan.ByHand, fmt.Sprintf("%s is suspended; the new one makes runs by its schedule.", d.state.CronJob))
	}
	return nil
}

// inventory reads what an old inventory's values do not say.
func (d *drafter) inventory(ctx context.Context, r *values.Release) error {
	for _, u := range d.had {
		if u.GetKind() != "ConfigMap" {
			continue
		}
		if data, _, _ := unstructured.NestedStringMap(u.Object, "data"); data["collector.resources"] != "" || data["collector.watchNamespace"] != "" {
			r.Config = data
		}
	}
	job, err := as[batchv1.CronJob](d.find(d.state.CronJob))
	if err != nil {
		return err
	}
	if job.Spec.Suspend != nil && *job.Spec.Suspend {
		d.suspended = true
	}
	from := credentials(job)
	if from == "" {
		d.problem("%s reads no accessKey from a Secret: with what it logs in is not known", d.state.CronJob)
		return nil
	}
	if err := d.carry(ctx, from); err != nil {
		return err
	}
	r.Credentials = d.state.To.Name
	known, err := charts.ResourceTypes()
	if err != nil {
		return err
	}
	r.Types = map[string]bool{}
	for _, t := range known {
		r.Types[t.Name()] = t.Inventory
	}
	if r.Served, err = d.served(); err != nil {
		return err
	}
	r.CustomGroups, err = d.customGroups(ctx)
	return err
}

// credentials is the Secret that the old program has its access key from.
func credentials(job *batchv1.CronJob) string {
	for _, c := range job.Spec.JobTemplate.Spec.Template.Spec.Containers {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Key == accessKey {
				return e.ValueFrom.SecretKeyRef.Name
			}
		}
	}
	return ""
}

// Keys of the credentials, in the old Secret as in the new.
const (
	accessKey = "accessKey"
	secretKey = "secretKey"
)

// carry decides where the new release has its credentials from: a Secret of the
// user's stays where it is, one of the old release is copied before it goes.
func (d *drafter) carry(ctx context.Context, name string) error {
	from := Object{"v1", "Secret", d.old.Namespace, name}
	secret, err := d.api.CoreV1().Secrets(from.Namespace).Get(ctx, from.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		d.problem("%s, with which %s logs in, is gone", from, d.state.CronJob)
		secret = &corev1.Secret{}
	case err != nil:
		return fmt.Errorf("read the credentials of the endpoint: %w", err)
	}
	for _, key := range []string{accessKey, secretKey} {
		if err == nil && len(secret.Data[key]) == 0 {
			d.problem("%s has no %s: the endpoint takes nobody without", from, key)
		}
	}
	d.endpoint = &Endpoint{AccessKey: string(secret.Data[accessKey]), SecretKey: string(secret.Data[secretKey])}
	if d.find(&from) == nil && d.plan.New.Namespace == from.Namespace {
		d.state.To = &from
		return nil
	}
	d.state.From = &from
	d.state.To = &Object{"v1", "Secret", d.plan.New.Namespace, d.plan.New.Name + "-endpoint-credentials"}
	return nil
}

// served returns the API groups that serve each plural. Groups whose server does
// not answer are left out.
func (d *drafter) served() (map[string][]string, error) {
	lists, err := d.api.Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("ask which types the API server serves: %w", err)
	}
	all := map[string][]string{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range l.APIResources {
			if slices.Contains(r.Verbs, "list") && !slices.Contains(all[r.Name], gv.Group) {
				all[r.Name] = append(all[r.Name], gv.Group)
			}
		}
	}
	return all, nil
}

// customGroups returns the groups of all CustomResourceDefinitions.
func (d *drafter) customGroups(ctx context.Context) ([]string, error) {
	list, err := d.names.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list CustomResourceDefinitions: %w", err)
	}
	var groups []string
	for _, c := range list.Items {
		if _, group, ok := strings.Cut(c.Name, "."); ok {
			groups = append(groups, group)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

func deref(o *Object) Object {
	if o == nil {
		return Object{}
	}
	return *o
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// merge lays b over a.
func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	for k, v := range b {
		under, ok1 := out[k].(map[string]any)
		over, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			out[k] = merge(under, over)
		} else {
			out[k] = v
		}
	}
	return out
}

// hide returns values without what is secret in them, or may be: what is named
// like a credential, who logs in with a URL, objects and variables of the user's.
func hide(v map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range v {
		out[k] = v
		switch v := v.(type) {
		case map[string]any:
			out[k] = hide(v)
		case string:
			out[k] = values.Redacted(v)
		}
		if _, isBool := v.(bool); !isBool && secretNames().MatchString(k) {
			out[k] = "(hidden)"
		}
	}
	return out
}

// secretNames are keys whose values are not shown.
func secretNames() *regexp.Regexp {
	return regexp.MustCompile(`(?i)(token|password|accessKey|secretKey|credential)$|^(extraObjects|extraEnv|env|extraArgs)$`)
}
