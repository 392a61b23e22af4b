package migrate

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/metawire/metawire/internal/installation"
)

// legacyLabel is on the old Service when it leads to Metawire; its value is the
// release that it was of.
const legacyLabel = "metawire.dev/legacy"

const (
	// proxies is how long nodes may take to follow a Service that has changed
	// (kube-proxy's minSyncPeriod is 1 s, and its source is a watch).
	proxies = 3 * time.Second
	// names is how long an address may be remembered that a Service's name had
	// (CoreDNS gives names 30 s by the configuration that kubeadm writes).
	names = 35 * time.Second
	// settled is how long refusals are looked for: the collectors wait 10 s for an
	// address to become known before they refuse, and a stock plugin comes back
	// within 1.6 s of its first failure.
	settled = 15 * time.Second
)

// handOver leads the old Service to the new collectors and ends the old ones,
// which can be undone: nothing is removed yet.
func (r *run) handOver(ctx context.Context) error {
	s := r.state.Service
	users, err := r.users(ctx)
	if err != nil {
		return err
	}
	if s != nil {
		err := r.do(ctx, "lead "+s.String()+" to the new collectors", func(ctx context.Context) ([]string, error) {
			return r.turn(ctx)
		})
		if err != nil {
			return err
		}
	}
	before, err := r.refusals(ctx)
	if err != nil {
		return err
	}
	err = r.do(ctx, "end the old collectors: scale "+r.state.Deployment.String()+" to 0", func(ctx context.Context) ([]string, error) {
		return nil, r.scaleToZero(ctx)
	})
	if err != nil {
		return err
	}
	limit := max(r.options.Timeout, 2*settled) // it takes its time
	return r.step(ctx, r.state.Plan.Old, limit, fmt.Sprintf("see for %s that the new collectors refuse nobody", settled), func(ctx context.Context) ([]string, error) {
		return r.accepted(ctx, before, users)
	})
}

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
	sums, err := old.MetricOf(ctx, pods, oldSubscribers, "")
	return sums[""], err
}

// podsOf are those of a Deployment.
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
	return pods.Items, nil
}

// turn changes the old Service so that it leads to the new collectors, and waits
// until it does.
func (r *run) turn(ctx context.Context) ([]string, error) {
	ours, err := r.collectorService(ctx)
	if err != nil {
		return nil, err
	}
	leads := *r.state.Service
	b, err := r.state.backup()
	if err != nil {
		return nil, err
	}
	was, err := as[corev1.Service](b.find(r.state.Service))
	if err != nil {
		return nil, err
	}
	var found []string
	target := ""
	if r.state.Relay != nil {
		leads = *r.state.Relay
		if err := r.relay(ctx, ours, was); err != nil {
			return nil, err
		}
		target = leads.Name + "." + leads.Namespace + ".svc." + r.clusterDomain(ctx)
		found = append(found, "it is an ExternalName now: "+target)
	}
	err = r.objects.change(ctx, r.state.Service.unstructured(), func(u *unstructured.Unstructured) error {
		disown(u, r.state.Plan.Old.Name)
		if target != "" {
			return externalName(u, target)
		}
		return pointAt(u, ours.Spec.Selector, was.Spec.Ports)
	})
	if err != nil {
		return nil, err
	}
	if err := until(ctx, leads.String()+" leads to a collector that is ready", func(ctx context.Context) (bool, error) {
		return r.leads(ctx, leads, ours.Spec.Selector)
	}); err != nil {
		return nil, err
	}
	return found, sleep(ctx, r.known())
}

// known is how long it takes until a change of the old Service is known wherever
// there may be a Falco.
func (r *run) known() time.Duration {
	if r.state.Relay != nil { // it changes what the name stands for
		return names
	}
	return proxies
}

// collectorService is the new release's.
func (r *run) collectorService(ctx context.Context) (*corev1.Service, error) {
	n := r.state.Plan.New
	list, err := r.api.CoreV1().Services(n.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=collector,app.kubernetes.io/instance=" + n.Name})
	if err != nil {
		return nil, fmt.Errorf("look for the new collectors' Service: %w", err)
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("want one Service of the collectors of release %s, there are %d", n, len(list.Items))
	}
	return &list.Items[0], nil
}

// plaintext is the port of the collector's pods without TLS.
const plaintext = "plaintext"

// target is the port of the collector's pods by the name of the old Service's.
func target(old corev1.ServicePort) string {
	switch old.Name {
	case "metrics":
		return "metrics"
	case "health-probe":
		return "health"
	}
	return plaintext // broker-grpc, or whatever a user has added for it
}

// ports are those of the old Service, as they lead to the new collectors.
func ports(old []corev1.ServicePort) []corev1.ServicePort {
	var all []corev1.ServicePort
	for _, p := range old {
		p.TargetPort = intstr.FromString(target(p))
		all = append(all, p)
	}
	return all
}

func pointAt(u *unstructured.Unstructured, selector map[string]string, old []corev1.ServicePort) error {
	if err := unstructured.SetNestedStringMap(u.Object, selector, "spec", "selector"); err != nil {
		return err
	}
	var list []any
	for _, p := range ports(old) {
		o, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&p)
		if err != nil {
			return err
		}
		list = append(list, o)
	}
	return unstructured.SetNestedSlice(u.Object, list, "spec", "ports")
}

// externalName turns a Service into a name for another.
func externalName(u *unstructured.Unstructured, target string) error {
	for _, field := range []string{"selector", "clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "externalTrafficPolicy", "healthCheckNodePort"} {
		unstructured.RemoveNestedField(u.Object, "spec", field)
	}
	ports, _, err := unstructured.NestedSlice(u.Object, "spec", "ports")
	if err != nil {
		return err
	}
	for _, p := range ports {
		delete(p.(map[string]any), "nodePort") //nolint:errcheck // the API server's ports are objects
	}
	if err := unstructured.SetNestedSlice(u.Object, ports, "spec", "ports"); err != nil {
		return err
	}
	if err := unstructured.SetNestedField(u.Object, string(corev1.ServiceTypeExternalName), "spec", "type"); err != nil {
		return err
	}
	return unstructured.SetNestedField(u.Object, target, "spec", "externalName")
}

// disown takes an object out of its release.
func disown(u *unstructured.Unstructured, release string) {
	a, l := u.GetAnnotations(), u.GetLabels()
	delete(a, "meta.helm.sh/release-name")
	delete(a, "meta.helm.sh/release-namespace")
	if l == nil {
		l = map[string]string{}
	}
	delete(l, "app.kubernetes.io/managed-by")
	delete(l, "helm.sh/chart")
	l[legacyLabel] = release
	u.SetAnnotations(a)
	u.SetLabels(l)
}

// relay makes the Service of ours that an old one in another namespace points to.
func (r *run) relay(ctx context.Context, ours, old *corev1.Service) error {
	o := r.state.Relay
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, Labels: map[string]string{legacyLabel: r.state.Plan.Old.Name, releaseLabel: r.state.mark()}},
		Spec:       corev1.ServiceSpec{Selector: ours.Spec.Selector},
	}
	for _, p := range ports(old.Spec.Ports) {
		p.NodePort = 0
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s)
	if err != nil {
		return err
	}
	made := &unstructured.Unstructured{Object: u}
	made.SetAPIVersion(o.APIVersion)
	made.SetKind(o.Kind)
	unstructured.RemoveNestedField(made.Object, "status")
	if err := r.objects.create(ctx, made, false); err != nil {
		return err
	}
	now, err := r.objects.live(ctx, made)
	if err == nil && (now == nil || now.GetLabels()[releaseLabel] != r.state.mark()) {
		err = fmt.Errorf("%s was made by somebody else meanwhile", o)
	}
	return err
}

// clusterDomain is what names of Services end with: as CoreDNS is told, else the
// usual one.
func (r *run) clusterDomain(ctx context.Context) string {
	const usual = "cluster.local"
	m, err := r.api.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "coredns", metav1.GetOptions{})
	if err != nil {
		return usual // another DNS server, or no leave to look
	}
	found := regexp.MustCompile(`(?m)^\s*kubernetes\s+([a-z0-9.-]+)`).FindStringSubmatch(m.Data["Corefile"])
	if found == nil {
		return usual
	}
	return strings.TrimSuffix(found[1], ".")
}

// leads reports whether a Service leads to a pod of a selector that is ready.
func (r *run) leads(ctx context.Context, service Object, selector map[string]string) (bool, error) {
	lists, err := r.api.DiscoveryV1().EndpointSlices(service.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service.Name})
	if err != nil {
		return false, fmt.Errorf("see where %s leads: %w", service, err)
	}
	pods, err := r.api.CoreV1().Pods(service.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.Set(selector).String()})
	if err != nil {
		return false, fmt.Errorf("see where %s leads: %w", service, err)
	}
	ours := map[string]bool{}
	for _, p := range pods.Items {
		ours[p.Name] = true
	}
	leads := false
	for _, s := range lists.Items {
		// A port of the Service that no pod has is in no slice.
		streams := slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool {
			return target(corev1.ServicePort{Name: ptr.Deref(p.Name, "")}) == plaintext
		})
		for _, e := range s.Endpoints {
			if e.TargetRef == nil || !ours[e.TargetRef.Name] {
				return false, nil // an old one, still
			}
			leads = leads || e.Conditions.Ready != nil && *e.Conditions.Ready && streams
		}
	}
	return leads, nil
}

// scaleToZero ends the old collectors, and waits until none is left.
func (r *run) scaleToZero(ctx context.Context) error {
	o := r.state.Deployment
	if err := r.scale(ctx, 0); err != nil {
		return err
	}
	return until(ctx, "no pod of "+o.String()+" is left", func(ctx context.Context) (bool, error) {
		pods, err := r.podsOf(ctx, o)
		return err == nil && len(pods) == 0, err
	})
}

func (r *run) scale(ctx context.Context, replicas int64) error {
	return r.objects.change(ctx, r.state.Deployment.unstructured(), func(u *unstructured.Unstructured) error {
		return unstructured.SetNestedField(u.Object, replicas, "spec", "replicas")
	})
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
	case users > 0 && came == 0:
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

// sleep waits, or returns why ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
