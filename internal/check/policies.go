package check

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metawire/metawire/internal/installation"
)

// networkPolicies looks at what policies say; it cannot tell whether the cluster's
// network keeps to them.
func networkPolicies(ctx context.Context, t *Target) finding {
	ns := t.found.Namespace
	list, err := t.found.Client().NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if apierrors.IsForbidden(err) { // Falco's are passed over then
		list, err = t.found.Client().NetworkingV1().NetworkPolicies(ns).List(ctx, metav1.ListOptions{})
	}
	if err != nil {
		return unread(err, "list networkpolicies in namespace "+ns)
	}
	way, err := t.way(ctx, list.Items)
	if err != nil {
		return unread(err, "list pods, namespaces and endpointslices")
	}
	var bad, odd []string
	for _, part := range []struct{ component, port string }{{installation.Collector, "grpc"}, {installation.Webhook, "https"}} {
		pods, err := t.found.Pods(ctx, part.component)
		if err != nil {
			return unread(err, "list pods in namespace "+ns)
		}
		if len(pods) == 0 { // all of a part are alike
			continue
		}
		bad = append(bad, way.out(&pods[0])...)
		port, err := installation.PortOf(&pods[0], part.port)
		if err != nil { // no stream
			continue
		}
		closed, selected := way.in(&pods[0], port, part.component == installation.Collector)
		bad, odd = append(bad, closed...), append(odd, selected...)
		if part.component == installation.Collector {
			bad = append(bad, way.falcosOut(port, t.found.Port)...)
		}
	}
	switch {
	case len(bad) > 0:
		return fail("change the policy that is named, or delete it if it is not the cluster's rule; the chart's own (networkPolicy.enabled) admit everybody to the daemons' ports and let the pods call whom they need. "+
			"What was changed in one of those is made anew: delete it, and "+t.reinstall(), bad...)
	case len(odd) > 0:
		return warn("if the check of the canary fails too, this is why: admit everybody to that port, as the chart's own policy does", odd...)
	}
	return fine()
}

// way is what decides who reaches whom.
type way struct {
	policies   []networkingv1.NetworkPolicy
	namespaces map[string]labels.Set
	falcos     []corev1.Pod
	api        []int // ports of the API server: the Service's and its own
}

func (t *Target) way(ctx context.Context, policies []networkingv1.NetworkPolicy) (*way, error) {
	w := &way{policies: policies, namespaces: map[string]labels.Set{}, api: []int{httpsPort}}
	if len(policies) == 0 {
		return w, nil
	}
	var err error
	if w.falcos, err = t.falcos(ctx); err != nil {
		return nil, err
	}
	namespaces, err := t.found.Client().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, ns := range namespaces.Items {
		w.namespaces[ns.Name] = ns.Labels
	}
	parts, err := t.found.Client().DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	if err != nil {
		return w, nil //nolint:nilerr // who may not read it knows the Service's port
	}
	for _, part := range parts.Items {
		for _, p := range part.Ports {
			if p.Port != nil {
				w.api = append(w.api, int(*p.Port))
			}
		}
	}
	return w, nil
}

// of returns the policies of a way that select the pod: with any of them the way is
// closed but for what one of them opens. On its node's network none holds.
func (w *way) of(p *corev1.Pod, kind networkingv1.PolicyType) (all []networkingv1.NetworkPolicy) {
	if p.Spec.HostNetwork {
		return nil
	}
	for i := range w.policies {
		n := &w.policies[i]
		selector, err := metav1.LabelSelectorAsSelector(&n.Spec.PodSelector)
		if err == nil && n.Namespace == p.Namespace && selector.Matches(labels.Set(p.Labels)) && slices.Contains(typesOf(n), kind) {
			all = append(all, *n)
		}
	}
	return all
}

// in says who is kept from a port of a pod: everybody, or some Falco pods; and if only
// pods that a selector matches are admitted to it.
func (w *way) in(p *corev1.Pod, port int, streams bool) (closed, selected []string) {
	policies := w.of(p, networkingv1.PolicyTypeIngress)
	if len(policies) == 0 {
		return nil, nil
	}
	names := namesOf(policies)
	var open []networkingv1.NetworkPolicyIngressRule
	for _, n := range policies {
		for _, rule := range n.Spec.Ingress {
			if admits(rule.Ports, p, port) {
				open = append(open, rule)
			}
		}
	}
	if len(open) == 0 {
		return []string{fmt.Sprintf("NetworkPolicy %s admits nobody to port %d of pod %s", names, port, p.Name)}, nil
	}
	if !streams {
		if !slices.ContainsFunc(open, func(r networkingv1.NetworkPolicyIngressRule) bool {
			return len(r.From) == 0 || slices.ContainsFunc(r.From, func(from networkingv1.NetworkPolicyPeer) bool { return from.IPBlock != nil })
		}) {
			selected = append(selected, fmt.Sprintf("NetworkPolicy %s admits only pods that its selectors match to port %d of pod %s, and the API server may be none", names, port, p.Name))
		}
		return nil, selected
	}
	var lost []string
	for i := range w.falcos {
		f := &w.falcos[i]
		if f.Status.PodIP == "" { // it does not run yet
			continue
		}
		if !slices.ContainsFunc(open, func(r networkingv1.NetworkPolicyIngressRule) bool { return w.among(f, r.From, p.Namespace) }) {
			lost = append(lost, f.Namespace+"/"+f.Name)
		}
	}
	if len(lost) > 0 {
		closed = append(closed, fmt.Sprintf("NetworkPolicy %s does not admit to port %d of pod %s: %s", names, port, p.Name, strings.Join(bounded(lost), ", ")))
	}
	return closed, nil
}

// among reports whether a pod is one of the peers that a policy of that namespace
// names; none are all.
func (w *way) among(p *corev1.Pod, peers []networkingv1.NetworkPolicyPeer, namespace string) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		if peer.IPBlock != nil {
			return slices.ContainsFunc(p.Status.PodIPs, func(ip corev1.PodIP) bool { return within(ip.IP, peer.IPBlock) })
		}
		if p.Spec.HostNetwork { // its address is the node's, which no selector matches
			return false
		}
		if peer.NamespaceSelector == nil && p.Namespace != namespace {
			return false
		}
		return matches(peer.NamespaceSelector, w.namespaces[p.Namespace]) && matches(peer.PodSelector, p.Labels)
	})
}

// matches reports whether a selector, or none, matches.
func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set)
}

func within(ip string, block *networkingv1.IPBlock) bool {
	address, err := netip.ParseAddr(ip)
	in := func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		return err == nil && prefix.Contains(address)
	}
	return err == nil && in(block.CIDR) && !slices.ContainsFunc(block.Except, in)
}

// out says that a daemon cannot call the API server.
func (w *way) out(p *corev1.Pod) []string {
	if names := w.shut(p, w.api...); names != "" {
		return []string{fmt.Sprintf("NetworkPolicy %s keeps pod %s from the API server (port %v)", names, p.Name, w.api)}
	}
	return nil
}

// falcosOut says which Falco pods cannot call the collectors.
func (w *way) falcosOut(ports ...int) (all []string) {
	for i := range w.falcos {
		p := &w.falcos[i]
		if names := w.shut(p, ports...); names != "" {
			all = append(all, fmt.Sprintf("NetworkPolicy %s in namespace %s keeps Falco pod %s from the collectors (port %v)", names, p.Namespace, p.Name, ports))
		}
	}
	return bounded(all)
}

// shut names the policies that let a pod call nobody at any of the ports.
func (w *way) shut(p *corev1.Pod, ports ...int) string {
	policies := w.of(p, networkingv1.PolicyTypeEgress)
	for _, n := range policies {
		for _, rule := range n.Spec.Egress {
			if slices.ContainsFunc(ports, func(port int) bool { return admits(rule.Ports, nil, port) }) {
				return ""
			}
		}
	}
	return namesOf(policies)
}

func namesOf(policies []networkingv1.NetworkPolicy) string {
	names := make([]string, 0, len(policies))
	for _, n := range policies {
		names = append(names, n.Name)
	}
	return strings.Join(names, ", ")
}

// typesOf are a policy's ways; without them it is of ingress, and of egress if it
// has rules for that.
func typesOf(n *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	if len(n.Spec.PolicyTypes) > 0 {
		return n.Spec.PolicyTypes
	}
	if len(n.Spec.Egress) > 0 {
		return []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	}
	return []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
}

// admits reports whether a rule is about the TCP port; one without ports is about all.
// Names are ports of the pod; without one any name may be the port.
func admits(ports []networkingv1.NetworkPolicyPort, p *corev1.Pod, port int) bool {
	if len(ports) == 0 {
		return true
	}
	for _, rule := range ports {
		switch {
		case rule.Protocol != nil && *rule.Protocol != corev1.ProtocolTCP:
		case rule.Port == nil:
			return true
		case rule.Port.Type == intstr.String && p == nil:
			return true
		case rule.Port.Type == intstr.String:
			if named, err := installation.PortOf(p, rule.Port.StrVal); err == nil && named == port {
				return true
			}
		case int(rule.Port.IntVal) == port, rule.EndPort != nil && int(rule.Port.IntVal) <= port && port <= int(*rule.EndPort):
			return true
		}
	}
	return false
}
