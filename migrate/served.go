package migrate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/internal/installation"
)

// oldSubscribers is the predecessor's gauge of the subscribers that are connected.
const oldSubscribers = "meta_collector_server_subscribers"

// users returns how many subscribers the old collectors serve, less than 0 if they
// do not tell. A run that was interrupted has counted before it ended them.
func (r *run) users(ctx context.Context) (float64, error) {
	if r.state.Users == nil {
		n, err := r.countUsers(ctx)
		if err != nil {
			n = -1 // its metrics are switched off, or it does not work
		}
		r.state.Users = &n
		if err := r.state.enter(ctx, r.api, phaseHandOver); err != nil {
			return 0, err
		}
	}
	return *r.state.Users, nil
}

func (r *run) countUsers(ctx context.Context) (float64, error) {
	pods, err := r.podsOf(ctx, r.state.Deployment)
	if err != nil {
		return 0, err
	}
	old, err := installation.At(r.config, r.state.Deployment.Namespace, r.state.Plan.Old.Name)
	if err != nil {
		return 0, err
	}
	pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return !installation.Ready(&p) || p.DeletionTimestamp != nil })
	sums, err := old.MetricOf(ctx, pods, oldSubscribers, "")
	return sums[""], err
}

// podsOf are those of a Deployment. Those that have ended, such as one that was
// evicted, lie about until somebody deletes them.
func (r *run) podsOf(ctx context.Context, o *Object) ([]corev1.Pod, error) {
	u, err := r.objects.live(ctx, o.unstructured())
	if err != nil || u == nil {
		return nil, err
	}
	d, err := as[appsv1.Deployment](u)
	if err != nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, err
	}
	pods, err := r.api.CoreV1().Pods(o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", o, err)
	}
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	}), nil
}

// Metrics of the collectors.
const (
	refusedMetric = "metawire_stream_refusals_total"
	legacyMetric  = "metawire_legacy_subscribers"
)

// accepted looks at the new collectors for a while: an error is that they refuse
// subscribers of the old one, or that of its users nobody comes. A look that fails
// is made good by the next.
func (r *run) accepted(ctx context.Context, before map[string]float64, users float64) ([]string, error) {
	var failed error
	for end := time.Now().Add(settled); time.Now().Before(end); {
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
		now, err := r.refusals(ctx)
		if failed = err; err != nil || !r.enforced() {
			continue
		}
		if more := grown(before, now); len(more) > 0 {
			return nil, fmt.Errorf("the new collectors have refused subscribers that the old one served (%s): their log says whom and why (kubectl -n %s logs -l app.kubernetes.io/component=collector). Falco pods that are not known as such need the annotation metawire.dev/inject: \"true\"; or let the new collectors serve everybody, as the old one did, with --set stream.authorization=audit",
				strings.Join(more, ", "), r.state.Plan.New.Namespace)
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("what the new collectors refuse is not known: %w", failed)
	}
	came, err := r.subscribers(ctx, r.state.Plan.New)
	switch {
	case err != nil:
		return nil, err
	case r.state.Service == nil:
		return nil, nil
	case users < 0:
		return []string{fmt.Sprintf("%v subscribers have come over the old Service; how many there were, the old collectors did not tell", came)}, nil
	case users > 0 && came == 0 && !r.state.Kept: // since then they may come with TLS
		return nil, fmt.Errorf("the old collectors served %v subscribers, and none has come to the new ones: does something, such as a NetworkPolicy, keep them from the pods in namespace %s?", users, r.state.Plan.New.Namespace)
	}
	return []string{fmt.Sprintf("%v subscribers have come over the old Service, of %v that the old collectors served", came, users)}, nil
}

// refusals are how many subscribers were refused because of their address, by
// reason. Who comes over an old Service has nothing else to show.
func (r *run) refusals(ctx context.Context) (map[string]float64, error) {
	made, err := installation.At(r.config, r.state.Plan.New.Namespace, r.state.Plan.New.Name)
	if err != nil {
		return nil, err
	}
	all, err := made.MetricBy(ctx, installation.Collector, refusedMetric, "reason")
	maps.DeleteFunc(all, func(reason string, _ float64) bool { return !strings.HasPrefix(reason, "address_") })
	return all, err
}

// grown says which counters are larger than before. One that is smaller is of a
// collector that was made anew.
func grown(before, now map[string]float64) []string {
	var more []string
	for _, reason := range slices.Sorted(maps.Keys(now)) {
		if n := now[reason] - before[reason]; n > 0 {
			more = append(more, fmt.Sprintf("%v by %s", n, reason))
		}
	}
	return more
}

// enforced reports whether the new collectors do refuse.
func (r *run) enforced() bool {
	mode, found, err := unstructured.NestedString(r.state.Values, "stream", "authorization")
	return err != nil || !found || mode == "enforce"
}

// subscribers is how many there are that use the old Service, or another way
// without TLS.
func (m *Migrator) subscribers(ctx context.Context, n NewRelease) (float64, error) {
	made, err := installation.At(m.config, n.Namespace, n.Name)
	if err != nil {
		return 0, err
	}
	return made.Metric(ctx, installation.Collector, legacyMetric)
}
