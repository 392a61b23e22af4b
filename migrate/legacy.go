package migrate

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
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
		limit := max(r.options.Timeout, r.known()+time.Minute) // it takes its time
		err := r.step(ctx, r.state.Plan.Old, limit, "lead "+s.String()+" to the new collectors", func(ctx context.Context) ([]string, error) {
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

// sleep waits, or returns why ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
