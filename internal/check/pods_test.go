package check

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
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
		"no image":       {waiting("ImagePullBackOff", "Back-off pulling"), askNobody, "ImagePullBackOff: image reg/metawire:1: Back-off pulling", "imagePullSecrets"},
		"never pulled":   {waiting("ErrImageNeverPull", ""), askNobody, "ErrImageNeverPull", "image.repository"},
		"crashes":        {waiting("CrashLoopBackOff", ""), askLog, "CrashLoopBackOff (OOMKilled, exit code 137)", "logs p --previous"},
		"volume":         {waiting("ContainerCreating", ""), askEvents, "ContainerCreating", "describe pod p"},
		"no such Secret": {waiting("CreateContainerConfigError", `secret "x" not found`), askNobody, `CreateContainerConfigError: secret "x" not found`, "describe pod p"},
		"ended":          {state(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 2}}), askLog, "ended (Error, exit code 2)", "logs p"},
		"not ready":      {state(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}), askItself, "not ready yet", "kubectl -n ns logs p"},
		"others' init": {corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "mesh", Image: "mesh:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no"}}}},
			ContainerStatuses:     []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}},
		}, askNobody, "init container mesh: ErrImagePull: image mesh:1: no", "registry"},
		"init containers run": {waiting("PodInitializing", ""), askEvents, "PodInitializing", "describe pod p"},
		"evicted":             {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory"}, askNobody, "Evicted: low on memory", "delete pod p"},
		"nothing is told":     {corev1.PodStatus{Phase: corev1.PodPending}, askEvents, "Pending", "does its node run"},
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

// TestPatches: a hint writes what it means, or nothing.
func TestPatches(t *testing.T) {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "metrics"}, {Name: "grpc"}}}}
	if got, want := replace(s, "port", 45000, "grpc"), `kubectl -n ns patch service s --type=json -p '[{"op":"add","path":"/spec/ports/1/port","value":45000}]'`; got != want {
		t.Errorf("got %s", got)
	}
	if got := replace(s, "port", 45000, "https"); got != "" { // -1 would be the last one
		t.Errorf("of a port that is not there: %s", got)
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
		"no selector":   {service(func(s *corev1.Service) { s.Spec.Selector = nil }), slice(nil, "1"), Failed, "Service s has no selector"},
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
