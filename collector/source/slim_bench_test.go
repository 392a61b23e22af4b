package source

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// ordinaryPod is like most pods of a cluster: a container of its own, a sidecar,
// an init container.
func ordinaryPod() *corev1.Pod {
	container := func(name string) corev1.Container {
		return corev1.Container{
			Name: name, Image: "registry.example/team/" + name + ":1.2.3", Args: []string{"--one=1", "--two=2"},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Env: []corev1.EnvVar{{Name: "A", Value: "a"}, {Name: "B", Value: "b"}, {Name: "NODE", ValueFrom: &corev1.EnvVarSource{
				FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nodeName"}}}},
			Resources:      corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}},
			VolumeMounts:   []corev1.VolumeMount{{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
			LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}},
		}
	}
	status := func(name string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, Image: "registry.example/team/" + name + ":1.2.3", Ready: true, ContainerID: "containerd://x",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1, 0)}}}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-7d4b9c6f5d-x2x7z", GenerateName: "web-7d4b9c6f5d-", Namespace: "shop", UID: "0a1b2c3d-0000-4000-8000-0123456789ab", ResourceVersion: "123456",
			CreationTimestamp: metav1.Unix(1, 0),
			Labels:            map[string]string{"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "shop", "pod-template-hash": "7d4b9c6f5d"},
			Annotations:       map[string]string{"prometheus.io/scrape": "true", "checksum/config": "0123456789abcdef0123456789abcdef"},
			OwnerReferences:   []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7d4b9c6f5d", UID: "rs", Controller: ptr.To(true)}},
			ManagedFields:     []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)}},
		},
		Spec: corev1.PodSpec{
			NodeName: "node-17", ServiceAccountName: "web", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: ptr.To(int64(30)),
			InitContainers: []corev1.Container{container("migrate")},
			Containers:     []corev1.Container{container("web"), container("proxy")},
			Volumes:        []corev1.Volume{{Name: "kube-api-access"}},
			Tolerations:    []corev1.Toleration{{Key: "a"}, {Key: "b"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: "10.0.0.17", PodIP: "10.1.2.3", PodIPs: []corev1.PodIP{{IP: "10.1.2.3"}},
			Conditions:            []corev1.PodCondition{{Type: corev1.PodReady}, {Type: corev1.ContainersReady}, {Type: corev1.PodScheduled}, {Type: corev1.PodInitialized}},
			InitContainerStatuses: []corev1.ContainerStatus{status("migrate")},
			ContainerStatuses:     []corev1.ContainerStatus{status("web"), status("proxy")},
		},
	}
}

// BenchmarkSlimPod is what an event of a pod costs before it reaches the hub:
// decoded, and trimmed.
func BenchmarkSlimPod(b *testing.B) {
	for _, containers := range []int{2, 8} {
		b.Run(fmt.Sprintf("containers=%d", containers), func(b *testing.B) {
			p := ordinaryPod()
			for len(p.Spec.Containers) < containers {
				p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
			}
			wire, err := p.Marshal()
			if err != nil {
				b.Fatal(err)
			}
			decoder := podDecoder()
			b.ReportAllocs()
			for b.Loop() {
				p := new(slimPod)
				if err := p.Unmarshal(wire); err != nil {
					b.Fatal(err)
				}
				_ = decoder.trimmed(p)
			}
		})
	}
}
