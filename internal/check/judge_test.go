package check

import (
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/lastrun"
	"github.com/metawire/metawire/internal/wiring"
)

// TestPodCause: why a pod is not ready, in Kubernetes' words, and whom to ask for
// more.
func TestPodCause(t *testing.T) {
	waiting := func(reason, message string) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Image: "reg/metawire:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}},
		}}}
	}
	state := func(s corev1.ContainerState) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: s}}}
	}
	for name, tc := range map[string]struct {
		status corev1.PodStatus
		ask    whom
		says   string
		hint   string
	}{
		"no node": {corev1.PodStatus{Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available",
		}}}, askNobody, "Unschedulable: 0/3 nodes", "nodeSelector"},
		"no image":        {waiting("ImagePullBackOff", "Back-off pulling"), askNobody, "ImagePullBackOff: image reg/metawire:1: Back-off pulling", "imagePullSecrets"},
		"never pulled":    {waiting("ErrImageNeverPull", ""), askNobody, "ErrImageNeverPull", "image.repository"},
		"crashes":         {waiting("CrashLoopBackOff", ""), askLog, "CrashLoopBackOff (OOMKilled, exit code 137)", "logs p --previous"},
		"volume":          {waiting("ContainerCreating", ""), askEvents, "ContainerCreating", "describe pod p"},
		"no such Secret":  {waiting("CreateContainerConfigError", `secret "x" not found`), askNobody, `CreateContainerConfigError: secret "x" not found`, "describe pod p"},
		"ended":           {state(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 2}}), askLog, "ended (Error, exit code 2)", "logs p"},
		"not ready":       {state(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}), askItself, "not ready yet", "kubectl -n ns logs -l app.kubernetes.io/component="},
		"evicted":         {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory"}, askNobody, "Evicted: low on memory", "delete pod p"},
		"nothing is told": {corev1.PodStatus{Phase: corev1.PodPending}, askEvents, "Pending", "does its node run"},
	} {
		t.Run(name, func(t *testing.T) {
			c, ask := podCause(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Status: tc.status})
			if ask != tc.ask || !strings.Contains(c.text, tc.says) || !strings.Contains(c.hint, tc.hint) {
				t.Errorf("got %+v, ask %d", c, ask)
			}
		})
	}
}

func TestStuck(t *testing.T) {
	condition := func(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus) appsv1.Deployment {
		return appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{Type: kind, Status: status, Message: "exceeded quota"}}}}
	}
	for name, tc := range map[string]struct {
		d    appsv1.Deployment
		says string
	}{
		"quota":   {condition(appsv1.DeploymentReplicaFailure, corev1.ConditionTrue), "cannot make pods: exceeded quota"},
		"stalled": {condition(appsv1.DeploymentProgressing, corev1.ConditionFalse), "does not come forward: exceeded quota"},
		"paused":  {appsv1.Deployment{Spec: appsv1.DeploymentSpec{Paused: true}}, "paused"},
		"well":    {condition(appsv1.DeploymentProgressing, corev1.ConditionTrue), ""},
	} {
		if c := stuck(&tc.d); !strings.Contains(c.text, tc.says) || (c.text == "") != (tc.says == "") {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

func TestCrashed(t *testing.T) {
	pod := func(reason string, code int32, ago time.Duration) corev1.Pod {
		return corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{LastTerminationState: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, FinishedAt: metav1.NewTime(now().Add(-ago))},
		}}}}}
	}
	for name, tc := range map[string]struct {
		pod  corev1.Pod
		hint string
	}{
		"out of memory": {pod("OOMKilled", 137, time.Minute), "collector.resources"},
		"crash":         {pod("Error", 2, time.Minute), "--previous"},
		"long ago":      {pod("Error", 2, 2*time.Hour), ""},
		"asked to end":  {pod("Completed", 0, time.Minute), ""},
	} {
		if c := crashed([]corev1.Pod{tc.pod}, now()); !strings.Contains(c.hint, tc.hint) || (c.hint == "") != (tc.hint == "") {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

// daemon is a collector.
func daemon() corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "1", Labels: map[string]string{"app": "collector"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "grpc", ContainerPort: 45000}}}}},
	}
}

func TestLeadsTo(t *testing.T) {
	service := func(change func(*corev1.Service)) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "collector"}, Ports: []corev1.ServicePort{{Name: "grpc", Port: 45000, TargetPort: intstr.FromString("grpc")}},
		}}
		if change != nil {
			change(s)
		}
		return s
	}
	no, grpc := false, "grpc"
	slice := func(ready *bool, uid string) []discoveryv1.EndpointSlice {
		e := discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
		if uid != "" {
			e.TargetRef = &corev1.ObjectReference{UID: types.UID(uid)}
		}
		return []discoveryv1.EndpointSlice{{ObjectMeta: metav1.ObjectMeta{Name: "slice"}, Endpoints: []discoveryv1.Endpoint{e}, Ports: []discoveryv1.EndpointPort{{Name: &grpc}}}}
	}
	for name, tc := range map[string]struct {
		service *corev1.Service
		slices  []discoveryv1.EndpointSlice
		outcome Outcome
		says    string
	}{
		"well":          {service(nil), slice(nil, "1"), OK, "leads to ready pods: 1"},
		"by number":     {service(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(45000) }), slice(nil, "1"), OK, ""},
		"same port":     {service(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.IntOrString{} }), slice(nil, "1"), OK, ""},
		"selects none":  {service(func(s *corev1.Service) { s.Spec.Selector["app"] = "x" }), nil, Failed, "does not select pod p: its selector is app=x"},
		"wrong port":    {service(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(1) }), slice(nil, "1"), Failed, "leads to port 1 of pod p, which listens on 45000"},
		"no such port":  {service(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("x") }), nil, Failed, "leads to port x"},
		"port unnamed":  {service(func(s *corev1.Service) { s.Spec.Ports = nil }), nil, Failed, "no port named grpc"},
		"none is ready": {service(nil), slice(&no, "1"), Failed, "no endpoints that are ready"},
		"none":          {service(nil), nil, Failed, "no endpoints that are ready"},
		"another pod":   {service(nil), slice(nil, "2"), Failed, "leads to 10.0.0.1 as well"},
		"a stray one":   {service(nil), slice(nil, ""), Failed, "leads to 10.0.0.1 as well"},
	} {
		t.Run(name, func(t *testing.T) {
			f := leadsTo(tc.service, "grpc", "", []corev1.Pod{daemon()}, tc.slices)
			if f.outcome != tc.outcome || !strings.Contains(strings.Join(f.details, "\n"), tc.says) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

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
			f := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "falco", Name: "f", Labels: map[string]string{"app": "falco"}}, Status: corev1.PodStatus{PodIP: "10.0.0.7"}}
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

func TestMisses(t *testing.T) {
	namespaces := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}}}}
	hook := func(change func(*admissionv1.MutatingWebhook)) *admissionv1.MutatingWebhook {
		h := &admissionv1.MutatingWebhook{Name: "h", NamespaceSelector: namespaces.DeepCopy(), ObjectSelector: &metav1.LabelSelector{}, Rules: []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}}}
		change(h)
		return h
	}
	for name, tc := range map[string]struct {
		change func(*admissionv1.MutatingWebhook)
		says   string
	}{
		"well":            {func(*admissionv1.MutatingWebhook) {}, ""},
		"everything":      {func(h *admissionv1.MutatingWebhook) { h.Rules[0].Resources = []string{"*"} }, ""},
		"other resources": {func(h *admissionv1.MutatingWebhook) { h.Rules[0].Resources = []string{"services"} }, "not called when pods are created: its rules are [CREATE] of [services] in the API groups [\"\"]"},
		"other operations": {func(h *admissionv1.MutatingWebhook) {
			h.Rules[0].Operations = []admissionv1.OperationType{admissionv1.Delete}
		}, "not called when pods are created"},
		"some pods": {func(h *admissionv1.MutatingWebhook) { h.ObjectSelector.MatchLabels = map[string]string{"a": "b"} }, "only pods with a=b"},
	} {
		got := strings.Join(misses(hook(tc.change)), "\n")
		if !strings.Contains(got, tc.says) || (got == "") != (tc.says == "") {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestOtherNamespaces: what another selector sees is judged by the namespaces that
// there are, for parts of some clusters add to it.
func TestOtherNamespaces(t *testing.T) {
	notX := metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}}
	all := []corev1.Namespace{
		{ObjectMeta: metav1.ObjectMeta{Name: "falco", Labels: map[string]string{"team": "sec"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Labels: map[string]string{"control-plane": "true"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "out", Labels: map[string]string{"a": "x"}}},
	}
	for name, tc := range map[string]struct {
		selector metav1.LabelSelector
		says     string
		loses    bool
	}{
		"the same":          {metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{notX}}, "", false},
		"of AKS":            {metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{notX, {Key: "control-plane", Operator: metav1.LabelSelectorOpDoesNotExist}}}, "sees namespaces with a notin (x),!control-plane", false},
		"all":               {metav1.LabelSelector{}, "the release is for those with a notin (x)", false},
		"without Falco's":   {metav1.LabelSelector{MatchLabels: map[string]string{"team": "none"}}, "it does not see falco", true},
		"that cannot be so": {metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "x"}}}, "namespaceSelector: ", true},
	} {
		h := &admissionv1.MutatingWebhook{Name: "h", NamespaceSelector: &tc.selector}
		got, loses := otherNamespaces(h, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{notX}}, all)
		if !strings.Contains(got, tc.says) || (got == "") != (tc.says == "") || loses != tc.loses {
			t.Errorf("%s: got %q, %t", name, got, loses)
		}
	}
}

// TestUnmet: the chart's own conditions are met by a Falco pod; see the e2e test for
// those that stand there.
func TestUnmet(t *testing.T) {
	for expression, says := range map[string]string{
		"true": "",
		"object.metadata.?annotations[?'metawire.dev/inject'].orValue('') != 'false'":                             "",
		"object.spec.?containers.orValue([]).exists(c, c.name == 'falco' || c.?image.orValue('').matches('^x$'))": "",
		"false": "its matchCondition c (false) is not so for one",
		"object.metadata.?annotations[?'metawire.dev/inject'].orValue('') == 'true'": "is not so for one",
		"object.metadata.labels.team == 'a'":                                         "fails: no such key: labels",
		"request.namespace == 'falco'":                                               "",
		"request.namespace == 'sec'":                                                 "a Falco pod in namespace falco: its matchCondition c (request.namespace == 'sec') is not so",
		"request.userInfo.username == 'a'":                                           "", // not to be known here
		"authorizer.group('').resource('pods').check('get').allowed()":               "",
		"'a'": "is not so for one",
	} {
		h := &admissionv1.MutatingWebhook{Name: "h", MatchConditions: []admissionv1.MatchCondition{{Name: "c", Expression: expression}}}
		got := strings.Join(unmet(h, "falco"), "\n")
		if !strings.Contains(got, says) || (got == "") != (says == "") {
			t.Errorf("%s: got %q", expression, got)
		}
	}
}

func TestMissed(t *testing.T) {
	for name, tc := range map[string]struct {
		schedule, jitter string
		ended            time.Duration // ago
		missed           bool
	}{
		"just now":                  {"", "", time.Minute, false},
		"a little late":             {"", "", 40 * time.Minute, false},
		"none for two hours":        {"", "", 2 * time.Hour, true},
		"two hours are allowed":     {"", "2h", 2 * time.Hour, false},
		"and more than that passed": {"", "2h", 4 * time.Hour, true},
		"once a day, two ago":       {"0 3 * * *", "", 34 * time.Hour, true},
		"once a day, one ago":       {"0 3 * * *", "", 9 * time.Hour, false},
		"no schedule that is one":   {"x", "", 1000 * time.Hour, false},
	} {
		if due := missed(&installation.Sender{Schedule: tc.schedule, Jitter: tc.jitter}, now().Add(-tc.ended), now()); due.IsZero() == tc.missed {
			t.Errorf("%s: got %s", name, due)
		}
	}
}

// TestJudgeRun: a run that the endpoint put off is no fault of anybody's.
func TestJudgeRun(t *testing.T) {
	target := &Target{Now: now(), found: &installation.Installation{Namespace: "ns"}}
	for name, tc := range map[string]struct {
		report  lastrun.Report
		outcome Outcome
		hint    string
	}{
		"complete":                {lastrun.Report{Result: "complete", Ended: now()}, OK, ""},
		"put off":                 {lastrun.Report{Result: "skipped", TooEarly: true, Error: "425", Ended: now()}, Warning, "inventory.schedule"},
		"put off, and none since": {lastrun.Report{Result: "skipped", TooEarly: true, Error: "425", Ended: now().Add(-3 * time.Hour)}, Failed, "are the collectors ready?"},
		"refused":                 {lastrun.Report{Result: "skipped", Error: "the account is suspended", Ended: now()}, Failed, "inventory.credentials"},
		"partial":                 {lastrun.Report{Result: "partial", Ended: now()}, Failed, "metawire inventory types"},
	} {
		f := target.judgeRun(&tc.report, &installation.Sender{})
		if f.outcome != tc.outcome || !strings.Contains(f.hint, tc.hint) || (f.hint == "") != (tc.hint == "") {
			t.Errorf("%s: got %+v", name, f)
		}
	}
}

// TestBroken: a Falco that is wired and does not start is told of; one that is about
// to start is not, and of one that we left alone somebody else tells.
func TestBroken(t *testing.T) {
	waits := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "so it is"}}
	}
	for name, tc := range map[string]struct {
		container string
		state     corev1.ContainerState
		judged    wiring.State
		says      string
	}{
		"its image":         {"falco", waits("ErrImagePull"), wiring.StateWired, "it is wired, and Falco does not run: ErrImagePull: image : so it is. check Falco's own image"},
		"its command":       {"falco", waits("CreateContainerError"), wiring.StateNoTicket, "CreateContainerError: so it is. kubectl -n ns describe pod p"},
		"about to start":    {"falco", waits("ContainerCreating"), wiring.StateWired, ""},
		"it runs":           {"falco", corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, wiring.StateWired, ""},
		"opted out":         {"falco", waits("ErrImagePull"), wiring.StateOptedOut, ""},
		"another container": {"sidecar", waits("ErrImagePull"), wiring.StateWired, ""},
	} {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "falco"}, {Name: "sidecar"}}},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: tc.container, State: tc.state}}},
		}
		if got := (&Target{}).broken(t.Context(), p, tc.judged); got != tc.says && (tc.says == "" || !strings.Contains(got, tc.says)) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestOlder: a pod whose ServiceAccount was made anew holds a token of the one before.
func TestOlder(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now())}}
	pod := func(name string, after time.Duration) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now().Add(after))}}
	}
	if got := older([]corev1.Pod{pod("same", 0), pod("later", time.Second)}, account); got != "" {
		t.Errorf("%s is taken for older", got)
	}
	if got := older([]corev1.Pod{pod("later", time.Second), pod("old", -time.Second)}, account); got != "old" {
		t.Errorf("got %q", got)
	}
}

func TestUnpulled(t *testing.T) {
	pod := func(name, reason string) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{
			Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "no such image"}},
		}}}}
	}
	if got := unpulled(pod(wiring.InitContainer, "ErrImagePull")); !strings.Contains(got, "no such image") || !strings.Contains(got, "webhook.imagePullSecrets") {
		t.Errorf("got %q", got)
	}
	for _, p := range []*corev1.Pod{pod("other", "ErrImagePull"), pod(wiring.InitContainer, "PodInitializing"), {}} {
		if got := unpulled(p); got != "" {
			t.Errorf("got %q", got)
		}
	}
}

// TestRunning: a pod of an image that no Deployment has is told, and nothing is made
// of containers that others put beside the daemons, nor of a registry's mirror.
func TestRunning(t *testing.T) {
	pod := func(images ...string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
		for i, image := range images {
			name := []string{"collector", "istio-proxy"}[i]
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: image})
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, ImageID: "id of " + image})
		}
		return p
	}
	const ours, proxy = "ghcr.io/metawire/metawire:0.1.0", "istio/proxyv2:1.26"
	for name, tc := range map[string]struct {
		pods   []corev1.Pod
		stale  int
		builds int
	}{
		"as it should be":        {[]corev1.Pod{pod(ours), pod(ours)}, 0, 1},
		"a sidecar":              {[]corev1.Pod{pod(ours, proxy)}, 0, 1},
		"a mirror":               {[]corev1.Pod{pod("mirror.example/metawire/metawire:0.1.0")}, 0, 1},
		"of before":              {[]corev1.Pod{pod(ours), pod("ghcr.io/metawire/metawire:0.0.1")}, 1, 2},
		"of before, and sidecar": {[]corev1.Pod{pod("ghcr.io/metawire/metawire:0.0.1", proxy)}, 1, 1},
	} {
		stale, builds := running(tc.pods, map[string][]string{ours: {"Deployment"}}, map[string]bool{"collector": true})
		if len(stale) != tc.stale || builds != tc.builds {
			t.Errorf("%s: got %q and %d builds, want %d and %d", name, stale, builds, tc.stale, tc.builds)
		}
	}
}

// TestIsOther: a build that nobody released is of no version.
func TestIsOther(t *testing.T) {
	for _, tc := range []struct {
		is, than string
		want     bool
	}{{"0.1.0", "0.1.0", false}, {"v0.1.0", "0.1.0", false}, {"0.1.0", "0.2.0", true}, {"dev", "0.2.0", false}, {"0.1.0", "dev", false}} {
		if got := isOther(tc.is, tc.than); got != tc.want {
			t.Errorf("%s and %s: got %t", tc.is, tc.than, got)
		}
	}
}
