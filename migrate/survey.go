package migrate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/migrate/release"
	"github.com/metawire/metawire/migrate/values"
)

// Survey is what there is to do, and what was done.
type Survey struct {
	// Plans are what there is to do, migrations that were begun first.
	Plans []*Plan `json:"plans"`
	// Done are migrations that have ended.
	Done []Done `json:"done"`
}

// Done is a migration that has ended.
type Done struct {
	Old OldRelease `json:"old"`
	New NewRelease `json:"new"`
	// Service is the old Service, which still leads old subscribers to the new
	// collectors; nil if there is none, or none any more.
	Service *Object `json:"service,omitempty"`

	state *state
}

// Names of charts.
const (
	metawireChart = "metawire"
	falcoChart    = "falco"
)

// Survey looks at the cluster and plans. It changes nothing, in the cluster or
// elsewhere; it does ask an inventory's endpoint, with the old release's keys.
func (m *Migrator) Survey(ctx context.Context) (*Survey, error) {
	s, err := m.Begun(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{} // of what was begun; whether it goes on
	for _, p := range s.Plans {
		known[p.Old.String()] = true
	}
	for _, d := range s.Done {
		known[d.Old.String()] = d.state.Phase != phaseDone
	}
	heads, err := m.records.Heads(ctx, m.options.Namespace)
	if err != nil {
		return nil, err
	}
	taken := m.taken(heads, s)
	for _, h := range heads {
		if m.options.Release != "" && h.Name != m.options.Release || known[h.String()] {
			continue
		}
		p, err := m.look(ctx, h, taken)
		if err != nil {
			return nil, err
		}
		if p != nil {
			s.Plans = append(s.Plans, p)
			taken[p.New.Name] = p.New.String()
		}
	}
	foreign, err := m.foreign(ctx, heads, known)
	s.Plans = append(s.Plans, foreign...)
	return s, err
}

// Begun looks only at the migrations that were begun, and those that have ended.
func (m *Migrator) Begun(ctx context.Context) (*Survey, error) {
	s := &Survey{Plans: []*Plan{}, Done: []Done{}}
	begun, err := states(ctx, m.api, m.options.Namespace)
	if err != nil {
		return nil, err
	}
	for _, b := range begun {
		if m.options.Release != "" && b.Plan.Old.Name != m.options.Release {
			continue
		}
		if b.Phase == phaseDone || b.Phase == PhaseKept && m.options.KeepOld {
			s.Done = append(s.Done, Done{Old: b.Plan.Old, New: b.Plan.New, Service: b.Service, state: b})
		} else {
			b.Plan.Resumes, b.Plan.state, b.Plan.Steps = b.Phase, b, b.steps(b.Phase)
			b.Plan.Problems = b.otherwise(m.options)
			s.Plans = append(s.Plans, b.Plan)
		}
	}
	return s, nil
}

// otherwise are the options that a migration that was begun cannot follow any
// more.
func (s *state) otherwise(o Options) []string {
	if s.Phase == PhaseRollBack {
		return nil
	}
	var problems []string
	n := s.Plan.New
	if o.ToRelease != "" && o.ToRelease != n.Name || o.ToNamespace != "" && o.ToNamespace != n.Namespace {
		problems = append(problems, fmt.Sprintf("the migration that was begun makes release %s: leave --to-release and --to-namespace out, or undo it first (--rollback)", n))
	}
	was, err1 := json.Marshal(s.Values)
	want, err2 := json.Marshal(merge(s.Values, o.Values))
	if err1 != nil || err2 != nil || !bytes.Equal(was, want) {
		problems = append(problems, "the migration that was begun has other values than those given now: leave --set and --values out (helm upgrade changes the new release afterwards), or undo it first (--rollback)")
	}
	if o.KeepOld && s.Phase == phaseRemove {
		problems = append(problems, "the old release is being removed already, so --keep-old comes too late: leave it out, or undo it (--rollback)")
	}
	return problems
}

// taken returns which names releases of Metawire have.
func (m *Migrator) taken(heads []release.Head, s *Survey) map[string]string {
	taken := map[string]string{}
	for _, h := range heads {
		if h.Chart == metawireChart {
			taken[h.Name] = h.String()
		}
	}
	for _, p := range s.Plans {
		taken[p.New.Name] = p.New.String()
	}
	return taken
}

// look plans for a release, or returns nil if it is none that can be migrated.
func (m *Migrator) look(ctx context.Context, h release.Head, taken map[string]string) (*Plan, error) {
	switch {
	case h.Unreadable != nil && m.options.Release != "":
		return nil, h.Unreadable
	case slices.Contains(values.Charts(), h.Chart):
		return m.draft(ctx, h, taken)
	case slices.Contains(h.Subcharts, values.Metacollector), slices.Contains(h.Subcharts, falcoChart):
		return m.subchart(ctx, h)
	}
	return nil, nil
}

func planOf(h release.Head) *Plan {
	return &Plan{Old: OldRelease{h.Name, h.Namespace, h.Chart, h.Version, h.Revision}}
}

// subchart explains why a collector that is a part of another release, Falco's,
// cannot be taken from it.
func (m *Migrator) subchart(ctx context.Context, h release.Head) (*Plan, error) {
	old, err := m.records.Get(ctx, h)
	if err != nil {
		return nil, err
	}
	all, err := m.objects.manifest(old.Manifest, h.Namespace)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(all, func(u *unstructured.Unstructured) bool { return isCollectors(u.GetLabels()) }) {
		return nil, nil // switched off
	}
	p := planOf(h)
	off := "as its values say how"
	if h.Chart == falcoChart {
		off = fmt.Sprintf("helm upgrade %s falcosecurity/%s --version %s -n %s --reuse-values --set collectors.kubernetes.enabled=false", h.Name, h.Chart, h.Version, h.Namespace)
	}
	p.Problems = []string{fmt.Sprintf(`%s is a part of release %s (chart %s %s) and cannot be taken from it. Install Metawire beside it, then switch the part off; Falco's pods are made anew by that, and wired as they are:
  helm install metawire charts/metawire -n metawire --create-namespace
  %s
Until then Falco goes on with the collector that it has. metawire check tells when every Falco pod is wired.`,
		values.Metacollector, h, h.Chart, h.Version, off)}
	return p, nil
}

// isCollectors reports whether an object is of the collector's chart.
func isCollectors(labels map[string]string) bool {
	return strings.HasPrefix(labels["helm.sh/chart"], values.Metacollector+"-")
}

// foreign finds what looks like an old release and is none of Helm's.
// A release whose migration was begun may have objects and no record: it is being
// brought back.
func (m *Migrator) foreign(ctx context.Context, heads []release.Head, begun map[string]bool) ([]*Plan, error) {
	if m.options.Release != "" {
		return nil, nil
	}
	deployments, err := m.names.Resource(appsv1.SchemeGroupVersion.WithResource("deployments")).Namespace(m.options.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: "helm.sh/chart", Limit: 0})
	if err != nil {
		return nil, fmt.Errorf("look for collectors that Helm did not install: %w", err)
	}
	var found []metav1.PartialObjectMetadata
	for _, d := range deployments.Items {
		if isCollectors(d.Labels) {
			d.Kind = "Deployment"
			found = append(found, d)
		}
	}
	// Firefly's chart has no labels, and this name in every cluster.
	role, err := m.names.Resource(rbacv1.SchemeGroupVersion.WithResource("clusterroles")).Get(ctx, "infralight-role", metav1.GetOptions{})
	switch {
	case err == nil && m.options.Namespace == "":
		role.Kind = "ClusterRole"
		found = append(found, *role)
	case err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
		return nil, fmt.Errorf("look for collectors that Helm did not install: %w", err)
	}
	var plans []*Plan
	for _, f := range found {
		owner := f.Annotations["meta.helm.sh/release-namespace"] + "/" + f.Annotations["meta.helm.sh/release-name"]
		_, known := begun[owner]
		if known || slices.ContainsFunc(heads, func(h release.Head) bool { return h.String() == owner }) {
			continue
		}
		who := cmp.Or(managedBy(f.Labels, f.Annotations), "nobody that is known here")
		plans = append(plans, &Plan{
			Old: OldRelease{Name: f.Name, Namespace: f.Namespace},
			Problems: []string{fmt.Sprintf("%s %s is an old collector's, of no release of Helm's; it is managed by %s: install Metawire in the same way, and remove the old collector from there when it runs (docs/migrate.md has the steps)",
				f.Kind, strings.TrimPrefix(f.Namespace+"/"+f.Name, "/"), who)},
		})
	}
	return plans, nil
}

// managedBy says who besides Helm looks after an object, empty if nobody does.
func managedBy(labels, annotations map[string]string) string {
	for _, by := range []struct{ key, who string }{
		{"argocd.argoproj.io/tracking-id", "Argo CD (application %s)"},
		{"argocd.argoproj.io/instance", "Argo CD (application %s)"},
		{"helm.toolkit.fluxcd.io/name", "Flux (HelmRelease %s)"},
		{"kustomize.toolkit.fluxcd.io/name", "Flux (Kustomization %s)"},
	} {
		name := annotations[by.key]
		if name == "" {
			name = labels[by.key]
		}
		if name != "" {
			name, _, _ = strings.Cut(name, ":") // tracking-id: application:group/kind:namespace/name
			return fmt.Sprintf(by.who, name)
		}
	}
	return ""
}

// ErrProblems says that a plan has problems, which it names.
var ErrProblems = errors.New("nothing was changed")
