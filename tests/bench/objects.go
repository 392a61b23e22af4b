package main

import (
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// born is when everything was created: the same in each run.
func born() metav1.Time { return metav1.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) }

// managedFields stands for what real objects carry besides, and what
// whoever decodes them pays for.
const managedFields = `{"f:metadata":{"f:labels":{".":{},"f:app.kubernetes.io/instance":{},"f:app.kubernetes.io/name":{},"f:pod-template-hash":{}},` +
	`"f:generateName":{},"f:ownerReferences":{".":{},"k:{\"uid\":\"0\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":` +
	`{".":{},"f:env":{".":{},"k:{\"name\":\"PORT\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},` +
	`"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},` +
	`"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},` +
	`"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}`

func meta(kind, namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: uid(kind, namespace, name), Labels: labels,
		CreationTimestamp: born(), Generation: 1,
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
			Time: ptr.To(born()), FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(managedFields),
		}},
	}
}

func controller(apiVersion, kind, namespace, name string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{
		APIVersion: apiVersion, Kind: kind, Name: name, UID: uid(kind, namespace, name),
		Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
	}}
}

func namespaceObject(name string) *corev1.Namespace {
	return &corev1.Namespace{
		ObjectMeta: meta("Namespace", "", name, map[string]string{corev1.LabelMetadataName: name}),
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}
}

func nodeObject(n int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: meta("Node", "", nodeName(n), map[string]string{corev1.LabelHostname: nodeName(n)}),
		Spec:       corev1.NodeSpec{ProviderID: "bench://" + nodeName(n)},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.16.%d.%d", n/256, n%256)},
		}},
	}
}

func (a app) selector() map[string]string {
	return map[string]string{"app.kubernetes.io/name": a.name(), "app.kubernetes.io/instance": a.namespace()}
}

func (a app) labels() map[string]string {
	l := a.selector()
	l["app.kubernetes.io/version"] = "2.7." + strconv.Itoa(a.number)
	return l
}

func (a app) podLabels() map[string]string {
	l := a.labels()
	l[appsv1.DefaultDeploymentUniqueLabelKey] = a.hash()
	return l
}

func (a app) deploymentObject() *appsv1.Deployment {
	n := int32(a.replicas)
	return &appsv1.Deployment{
		ObjectMeta: meta("Deployment", a.namespace(), a.name(), a.labels()),
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: a.selector()}, Template: a.template(a.labels()),
		},
		Status: appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: n, ReadyReplicas: n, AvailableReplicas: n},
	}
}

func (a app) replicaSetObject() *appsv1.ReplicaSet {
	n, m := int32(a.replicas), meta("ReplicaSet", a.namespace(), a.replicaSet(), a.podLabels())
	m.OwnerReferences = controller("apps/v1", "Deployment", a.namespace(), a.name())
	return &appsv1.ReplicaSet{
		ObjectMeta: m,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: a.podLabels()}, Template: a.template(a.podLabels()),
		},
		Status: appsv1.ReplicaSetStatus{ObservedGeneration: 1, Replicas: n, ReadyReplicas: n, AvailableReplicas: n},
	}
}

// serviceObject is headless: for one with an address the API server would
// miss its allocation.
func (a app) serviceObject() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: meta("Service", a.namespace(), a.name(), a.labels()),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone, ClusterIPs: []string{corev1.ClusterIPNone},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack),
			SessionAffinity: corev1.ServiceAffinityNone, Selector: a.selector(),
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

func (a app) sliceObject() *discoveryv1.EndpointSlice {
	labels := a.labels()
	labels[discoveryv1.LabelServiceName] = a.name()
	labels[discoveryv1.LabelManagedBy] = "endpointslice-controller.k8s.io"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  meta("EndpointSlice", a.namespace(), a.name()+"-x7k2p", labels),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To[int32](8080)}},
	}
	s.OwnerReferences = controller("v1", "Service", a.namespace(), a.name())
	for r := range a.replicas {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{a.podIP(r)},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
			NodeName:   ptr.To(nodeName(a.node(r))),
			TargetRef: &corev1.ObjectReference{
				Kind: "Pod", Namespace: a.namespace(), Name: a.podName(r), UID: uid("Pod", a.namespace(), a.podName(r)),
			},
		})
	}
	return s
}

func (a app) template(labels map[string]string) corev1.PodTemplateSpec {
	memory := resource.MustParse("256Mi")
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example/" + a.name() + ":2.7." + strconv.Itoa(a.number),
				ImagePullPolicy: corev1.PullIfNotPresent,
				Ports:           []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
				Env:             []corev1.EnvVar{{Name: "PORT", Value: "8080"}, {Name: "LOG_LEVEL", Value: "info"}},
				Resources: corev1.ResourceRequirements{
					Limits:   corev1.ResourceList{corev1.ResourceMemory: memory},
					Requests: corev1.ResourceList{corev1.ResourceMemory: memory, corev1.ResourceCPU: resource.MustParse("100m")},
				},
				TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			}},
			RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
			TerminationGracePeriodSeconds: ptr.To[int64](30), SchedulerName: corev1.DefaultSchedulerName,
			SecurityContext: &corev1.PodSecurityContext{}, EnableServiceLinks: ptr.To(true),
		},
	}
}

func (a app) podObject(replica int) *corev1.Pod {
	m := meta("Pod", a.namespace(), a.podName(replica), a.podLabels())
	m.GenerateName = a.replicaSet() + "-"
	m.OwnerReferences = controller("apps/v1", "ReplicaSet", a.namespace(), a.replicaSet())
	spec := a.template(nil).Spec
	spec.NodeName = nodeName(a.node(replica))
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: a.podIP(replica), PodIPs: []corev1.PodIP{{IP: a.podIP(replica)}},
		QOSClass: corev1.PodQOSBurstable, StartTime: ptr.To(born()),
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", Image: spec.Containers[0].Image, Ready: true, Started: ptr.To(true),
			ImageID:     "registry.example/" + a.name() + "@sha256:" + a.hash(),
			ContainerID: "containerd://" + string(m.UID),
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: born()}},
		}},
	}
	for _, c := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: born()})
	}
	return &corev1.Pod{ObjectMeta: m, Spec: spec, Status: status}
}
