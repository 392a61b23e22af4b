package check

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestCloses(t *testing.T) {
	ingress, egress := networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	policy := func(app string, types []networkingv1.PolicyType, ports ...networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicy {
		n := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: types}}
		if app != "" {
			n.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
		}
		if len(ports) > 0 {
			n.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: ports}}
		}
		return n
	}
	port := func(p intstr.IntOrString, end int32) networkingv1.NetworkPolicyPort {
		out := networkingv1.NetworkPolicyPort{Port: &p}
		if end > 0 {
			out.EndPort = &end
		}
		return out
	}
	open := policy("", []networkingv1.PolicyType{egress})
	open.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
	for name, tc := range map[string]struct {
		policies []networkingv1.NetworkPolicy
		says     string // "" is: nothing is closed
	}{
		"none":                {nil, ""},
		"of other pods":       {[]networkingv1.NetworkPolicy{policy("x", nil)}, ""},
		"closes all":          {[]networkingv1.NetworkPolicy{policy("", nil)}, "n admits nobody to port 45000"},
		"another port":        {[]networkingv1.NetworkPolicy{policy("", nil, port(intstr.FromInt32(1), 0))}, "n admits nobody to port 45000"},
		"the port":            {[]networkingv1.NetworkPolicy{policy("", nil, port(intstr.FromInt32(45000), 0))}, ""},
		"the port by name":    {[]networkingv1.NetworkPolicy{policy("", nil, port(intstr.FromString("grpc"), 0))}, ""},
		"another name":        {[]networkingv1.NetworkPolicy{policy("", nil, port(intstr.FromString("x"), 0))}, "admits nobody"},
		"a range":             {[]networkingv1.NetworkPolicy{policy("", nil, port(intstr.FromInt32(40000), 50000))}, ""},
		"every port":          {[]networkingv1.NetworkPolicy{policy("", nil, networkingv1.NetworkPolicyPort{})}, ""},
		"another one opens":   {[]networkingv1.NetworkPolicy{policy("", nil), policy("collector", nil, port(intstr.FromInt32(45000), 0))}, ""},
		"no way out":          {[]networkingv1.NetworkPolicy{policy("", []networkingv1.PolicyType{egress})}, "n keeps pod p from the API server"},
		"another one lets go": {[]networkingv1.NetworkPolicy{policy("", []networkingv1.PolicyType{egress}), open}, ""},
		"neither in nor out":  {[]networkingv1.NetworkPolicy{policy("", []networkingv1.PolicyType{ingress, egress})}, "keeps pod p from the API server"},
	} {
		t.Run(name, func(t *testing.T) {
			p := daemon()
			got := strings.Join(closes(tc.policies, &p), "\n")
			if !strings.Contains(got, tc.says) || (got == "") != (tc.says == "") {
				t.Errorf("got %q", got)
			}
			p.Spec.HostNetwork = true
			if got := closes(tc.policies, &p); got != nil {
				t.Errorf("on its node's network: %q", got)
			}
		})
	}
}

// closes says what policies keep from the port 45000 of a pod, and it from.
func closes(policies []networkingv1.NetworkPolicy, p *corev1.Pod) []string {
	w := &way{policies: policies, api: []int{443, 6443}}
	closed, _ := w.in(p, 45000, true)
	return append(closed, w.out(p)...)
}

// TestWay: who is admitted, and who may call whom.
func TestWay(t *testing.T) {
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	port := func(p *corev1.Protocol, n int32) []networkingv1.NetworkPolicyPort {
		number := intstr.FromInt32(n)
		return []networkingv1.NetworkPolicyPort{{Protocol: p, Port: &number}}
	}
	in := func(ports []networkingv1.NetworkPolicyPort, from ...networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicy {
		return networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: ports, From: from}},
		}}
	}
	out := func(namespace string, ports []networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicy {
		return networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "n"}, Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: []networkingv1.NetworkPolicyEgressRule{{Ports: ports}},
		}}
	}
	labelled := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	namespaced := networkingv1.NetworkPolicyPeer{NamespaceSelector: labelled("team", "sec")}
	for name, tc := range map[string]struct {
		policy   networkingv1.NetworkPolicy
		host     bool
		says     string
		selected bool
	}{
		"everybody":                  {policy: in(nil)},
		"UDP only":                   {policy: in(port(&udp, 45000)), says: "admits nobody to port 45000"},
		"Falco's namespace":          {policy: in(nil, namespaced), selected: true},
		"of a node's network":        {policy: in(nil, namespaced), host: true, says: "n does not admit to port 45000 of pod p: falco/f", selected: true},
		"another namespace":          {policy: in(nil, networkingv1.NetworkPolicyPeer{NamespaceSelector: labelled("team", "x")}), says: "does not admit", selected: true},
		"pods of its own namespace":  {policy: in(nil, networkingv1.NetworkPolicyPeer{PodSelector: labelled("app", "falco")}), says: "does not admit", selected: true},
		"Falco's pods":               {policy: in(nil, networkingv1.NetworkPolicyPeer{PodSelector: labelled("app", "falco"), NamespaceSelector: labelled("team", "sec")}), selected: true},
		"Falco's address":            {policy: in(nil, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}})},
		"not Falco's address":        {policy: in(nil, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.0.0.7/32"}}}), says: "does not admit"},
		"DNS only":                   {policy: out("", port(&udp, 53)), says: "n keeps pod p from the API server (port [443 6443])"},
		"the API server":             {policy: out("", port(&tcp, 6443))},
		"Falco calls nobody":         {policy: out("falco", port(&udp, 53)), says: "NetworkPolicy n in namespace falco keeps Falco pod f from the collectors (port [45000])"},
		"Falco calls the collectors": {policy: out("falco", port(nil, 45000))},
	} {
		t.Run(name, func(t *testing.T) {
			f := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "falco", Name: "f", Labels: map[string]string{"app": "falco"}}, Status: corev1.PodStatus{PodIP: "fd00::7", PodIPs: []corev1.PodIP{{IP: "fd00::7"}, {IP: "10.0.0.7"}}}}
			f.Spec.HostNetwork = tc.host
			w := &way{
				policies: []networkingv1.NetworkPolicy{tc.policy}, api: []int{443, 6443}, falcos: []corev1.Pod{f},
				namespaces: map[string]labels.Set{"falco": {"team": "sec"}},
			}
			p := daemon()
			closed, _ := w.in(&p, 45000, true)
			_, selected := w.in(&p, 45000, false)
			got := strings.Join(slices.Concat(closed, w.out(&p), w.falcosOut(45000)), "\n")
			if !strings.Contains(got, tc.says) || (got == "") != (tc.says == "") {
				t.Errorf("got %q", got)
			}
			if (len(selected) > 0) != tc.selected {
				t.Errorf("whether the API server may be kept out: %q", selected)
			}
		})
	}
}
