package check

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metawire/metawire/internal/installation"
)

// networkPolicies looks at what the policies of the namespace say; it cannot tell
// whether the cluster's network keeps to them.
func networkPolicies(ctx context.Context, t *Target) finding {
	ns := t.found.Namespace
	list, err := t.found.Client().NetworkingV1().NetworkPolicies(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return unread(err, "list networkpolicies in namespace "+ns)
	}
	var bad []string
	for _, part := range []struct{ component, port string }{{installation.Collector, "grpc"}, {installation.Webhook, "https"}} {
		pods, err := t.found.Pods(ctx, part.component)
		if err != nil {
			return unread(err, "list pods in namespace "+ns)
		}
		if len(pods) == 0 { // all of a part are alike
			continue
		}
		port, err := installation.PortOf(&pods[0], part.port)
		if err != nil { // no stream
			continue
		}
		bad = append(bad, closes(list.Items, &pods[0], port)...)
	}
	if len(bad) > 0 {
		return fail("set networkPolicy.enabled to true, which admits callers to the daemons' ports and lets the pods call whom they need; or change the policy", bad...)
	}
	return fine()
}

// closes says which way of a pod, to its port or out of it, is closed to everybody
// by policies of its namespace. Policies add up: one that opens it is enough.
func closes(policies []networkingv1.NetworkPolicy, p *corev1.Pod, port int) (bad []string) {
	if p.Spec.HostNetwork { // what policies do to it is not defined; most networks keep none
		return nil
	}
	closing := map[networkingv1.PolicyType]string{}
	open := map[networkingv1.PolicyType]bool{}
	for _, n := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&n.Spec.PodSelector)
		if err != nil || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		for _, way := range typesOf(&n) {
			closing[way] = n.Name
			if way == networkingv1.PolicyTypeEgress {
				open[way] = open[way] || len(n.Spec.Egress) > 0
				continue
			}
			for _, rule := range n.Spec.Ingress {
				open[way] = open[way] || admits(rule.Ports, p, port)
			}
		}
	}
	if name := closing[networkingv1.PolicyTypeIngress]; name != "" && !open[networkingv1.PolicyTypeIngress] {
		bad = append(bad, fmt.Sprintf("NetworkPolicy %s admits nobody to port %d of pod %s", name, port, p.Name))
	}
	if name := closing[networkingv1.PolicyTypeEgress]; name != "" && !open[networkingv1.PolicyTypeEgress] {
		bad = append(bad, fmt.Sprintf("NetworkPolicy %s lets pod %s call nobody, not even the API server", name, p.Name))
	}
	return bad
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

// admits reports whether a rule is about the port; one without ports is about all.
func admits(ports []networkingv1.NetworkPolicyPort, p *corev1.Pod, port int) bool {
	if len(ports) == 0 {
		return true
	}
	for _, rule := range ports {
		switch {
		case rule.Port == nil:
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
