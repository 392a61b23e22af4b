package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/tests/cluster"
)

// The sample workload: Deployment and Service web in namespace shop.
const (
	shop    = "shop"
	web     = "web"
	webPods = "app=" + web
)

// createWorkload creates the workload and waits until its pods run.
func (w *world) createWorkload(t *testing.T, replicas int32) {
	t.Helper()
	labels := map[string]string{"app": web}
	meta := metav1.ObjectMeta{Name: web, Namespace: shop, Labels: labels}
	_, err := w.api.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	grace := int64(1)
	if _, err := w.api.AppsV1().Deployments(shop).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: meta,
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: &grace,
					Containers:                    []corev1.Container{{Name: "pause", Image: cluster.PauseImage}},
				},
			},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.CoreV1().Services(shop).Create(t.Context(), &corev1.Service{
		ObjectMeta: meta,
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.rolledOut(t, shop, web)
}

// patchDeployment patches a Deployment (strategic merge) and waits until its
// pods are the wanted ones, and the former are gone.
func (w *world) patchDeployment(t *testing.T, namespace, name, patch string) {
	t.Helper()
	if _, err := w.api.AppsV1().Deployments(namespace).Patch(t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.rolledOut(t, namespace, name)
}

// rolledOut waits until a Deployment has the pods that it wants and no others,
// terminating ones neither.
func (w *world) rolledOut(t *testing.T, namespace, name string) {
	t.Helper()
	eventually(t, started, func(ctx context.Context) error {
		d, err := w.api.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := w.pods(ctx, namespace, metav1.FormatLabelSelector(d.Spec.Selector))
		if err != nil {
			return err
		}
		want, s := *d.Spec.Replicas, d.Status
		if s.ObservedGeneration < d.Generation || s.UpdatedReplicas != want || s.AvailableReplicas != want || len(pods) != int(want) {
			return fmt.Errorf("deployment %s/%s, %d pods: %+v", namespace, name, len(pods), s)
		}
		return nil
	})
}

// webPod returns a pod of the workload that is not being deleted.
func (w *world) webPod(ctx context.Context) (corev1.Pod, error) {
	pods, err := w.pods(ctx, shop, webPods)
	if err != nil {
		return corev1.Pod{}, err
	}
	for _, p := range pods {
		if p.DeletionTimestamp == nil {
			return p, nil
		}
	}
	return corev1.Pod{}, fmt.Errorf("no pod of %s in namespace %s", web, shop)
}

// churn changes the workload's metadata again and again until the function that
// it returns is called, which waits for the last change.
func (w *world) churn(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{"change":"%d"}}}`, n)
			_, err := w.api.AppsV1().Deployments(shop).Patch(ctx, web, types.MergePatchType, patch, metav1.PatchOptions{})
			if err == nil {
				var pod corev1.Pod
				if pod, err = w.webPod(ctx); err == nil {
					_, err = w.api.CoreV1().Pods(shop).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
				}
			}
			if err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("change the workload:", err)
		}
	}
}

// deletePodNow takes a pod of the workload out of the API at once.
func (w *world) deletePodNow(t *testing.T) {
	t.Helper()
	pod, err := w.webPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := int64(0)
	if err := w.api.CoreV1().Pods(shop).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
}
