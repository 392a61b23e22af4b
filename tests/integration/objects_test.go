package integration_test

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// newNamespace makes a namespace of the test's own and returns its name.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	create(t, ns)
	return ns.Name
}

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := api.Create(t.Context(), o); err != nil {
			t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// change updates an object.
func change[T client.Object](t *testing.T, o T, f func(T)) {
	t.Helper()
	f(o)
	if err := api.Update(t.Context(), o); err != nil {
		t.Fatalf("update %T %s: %v", o, o.GetName(), err)
	}
}

func remove(t *testing.T, o client.Object) {
	t.Helper()
	if err := deleteNow(t.Context(), o); err != nil {
		t.Fatalf("delete %T %s: %v", o, o.GetName(), err)
	}
}

// deleteNow deletes without a grace period: there is no kubelet to end it, and
// no garbage collector.
func deleteNow(ctx context.Context, o client.Object) error {
	return api.Delete(ctx, o, client.GracePeriodSeconds(0), client.PropagationPolicy(metav1.DeletePropagationBackground))
}

// owned makes the owner the object's controller.
func owned[T client.Object](o T, owner client.Object) T {
	gvk, _ := apiutil.GVKForObject(owner, scheme.Scheme) // it has every type that is used here
	o.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Name: owner.GetName(), UID: owner.GetUID(), Controller: ptr.To(true),
	}})
	return o
}

func kindOf(o client.Object) string {
	gvk, _ := apiutil.GVKForObject(o, scheme.Scheme)
	return gvk.Kind
}

func metadataOf(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}}
}

func podSpec(node string) corev1.PodSpec {
	return corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "none"}}}
}

func newPod(namespace, name, node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metadataOf(namespace, name), Spec: podSpec(node)}
}

// workloads makes, of each kind that owns pods, what the API server accepts.
func workloads() map[string]func(namespace, name string) client.Object {
	template := func(name string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}}, Spec: podSpec("")}
	}
	selector := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	job := func() batchv1.JobSpec {
		s := podSpec("")
		s.RestartPolicy = corev1.RestartPolicyNever
		return batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: s}}
	}
	return map[string]func(namespace, name string) client.Object{
		"Deployment": func(ns, n string) client.Object {
			return &appsv1.Deployment{ObjectMeta: metadataOf(ns, n), Spec: appsv1.DeploymentSpec{Selector: selector(n), Template: template(n)}}
		},
		"ReplicaSet": func(ns, n string) client.Object {
			return &appsv1.ReplicaSet{ObjectMeta: metadataOf(ns, n), Spec: appsv1.ReplicaSetSpec{Selector: selector(n), Template: template(n)}}
		},
		"DaemonSet": func(ns, n string) client.Object {
			return &appsv1.DaemonSet{ObjectMeta: metadataOf(ns, n), Spec: appsv1.DaemonSetSpec{Selector: selector(n), Template: template(n)}}
		},
		"StatefulSet": func(ns, n string) client.Object {
			return &appsv1.StatefulSet{ObjectMeta: metadataOf(ns, n), Spec: appsv1.StatefulSetSpec{Selector: selector(n), Template: template(n)}}
		},
		"ReplicationController": func(ns, n string) client.Object {
			return &corev1.ReplicationController{ObjectMeta: metadataOf(ns, n), Spec: corev1.ReplicationControllerSpec{Template: ptr.To(template(n))}}
		},
		"Job": func(ns, n string) client.Object {
			return &batchv1.Job{ObjectMeta: metadataOf(ns, n), Spec: job()}
		},
		"CronJob": func(ns, n string) client.Object {
			return &batchv1.CronJob{ObjectMeta: metadataOf(ns, n), Spec: batchv1.CronJobSpec{
				Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: job()}}}
		},
	}
}

func newService(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metadataOf(namespace, name), Spec: corev1.ServiceSpec{
		ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}}}
}

// newSlice makes an EndpointSlice of the service with these pods.
func newSlice(namespace, name, service string, pods ...*corev1.Pod) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints(pods...),
	}
}

func endpoints(pods ...*corev1.Pod) []discoveryv1.Endpoint {
	all := make([]discoveryv1.Endpoint, len(pods))
	for i, p := range pods {
		all[i] = discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.1.0.%d", i+1)},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		}
	}
	return all
}
