package main

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/tests/cluster"
)

// The sample workload.
const (
	shop     = "metawire-demo" // its namespace
	web      = "web"
	replicas = 3
)

type workload struct {
	api  kubernetes.Interface
	node string
}

// change is something that a user does to the workload.
type change struct {
	command string // that does the same
	patch   string
}

// changes are what the demo does, in order.
func (w workload) changes() []change {
	return []change{
		{"kubectl -n " + shop + " label deployment " + web + " team=payments", `{"metadata":{"labels":{"team":"payments"}}}`},
		{"kubectl -n " + shop + " scale deployment " + web + " --replicas=5", `{"spec":{"replicas":5}}`},
		{"kubectl -n " + shop + " patch deployment " + web + " -p ...   (its pods' template gets version: v2)", `{"spec":{"template":{"metadata":{"labels":{"version":"v2"}}}}}`},
	}
}

// create makes the workload, or brings it back to where the demo begins: it is
// deleted first, with all that the last demo did to it.
func (w workload) create(ctx context.Context) error {
	if err := ensureNamespace(ctx, w.api, shop); err != nil {
		return err
	}
	if err := w.delete(ctx); err != nil {
		return err
	}
	labels := map[string]string{"app": web}
	meta := metav1.ObjectMeta{Name: web, Namespace: shop, Labels: labels}
	count, grace := int32(replicas), int64(1)
	if _, err := w.api.AppsV1().Deployments(shop).Create(ctx, &appsv1.Deployment{
		ObjectMeta: meta,
		Spec: appsv1.DeploymentSpec{
			Replicas: &count,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": web, "version": "v1"}},
				Spec: corev1.PodSpec{
					// All on the node that is shown.
					Affinity:                      onNode(w.node),
					TerminationGracePeriodSeconds: &grace,
					Containers:                    []corev1.Container{{Name: web, Image: cluster.PauseImage}},
				},
			},
		},
	}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the sample Deployment: %w", err)
	}
	_, err := w.api.CoreV1().Services(shop).Create(ctx, &corev1.Service{
		ObjectMeta: meta,
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create the sample Service: %w", err)
	}
	return nil
}

// onNode lets a pod run on the node alone.
func onNode(name string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name}},
			}}},
		},
	}}
}

// delete removes what an earlier demo left, and blocks until its pods are gone.
func (w workload) delete(ctx context.Context) error {
	afterPods := metav1.DeletePropagationForeground
	err1 := w.api.AppsV1().Deployments(shop).Delete(ctx, web, metav1.DeleteOptions{PropagationPolicy: &afterPods})
	err2 := w.api.CoreV1().Services(shop).Delete(ctx, web, metav1.DeleteOptions{})
	for _, err := range []error{err1, err2} {
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete the last demo's workload: %w", err)
		}
	}
	return until(ctx, func(ctx context.Context) (bool, error) {
		_, err := w.api.AppsV1().Deployments(shop).Get(ctx, web, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
}

// apply makes a change and blocks until it is carried out: the wanted pods are
// there, and no others.
func (w workload) apply(ctx context.Context, c change) error {
	if _, err := w.api.AppsV1().Deployments(shop).Patch(ctx, web, types.StrategicMergePatchType, []byte(c.patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("%s: %w", c.command, err)
	}
	return w.rolledOut(ctx)
}

func (w workload) rolledOut(ctx context.Context) error {
	return until(ctx, func(ctx context.Context) (bool, error) {
		d, err := w.api.AppsV1().Deployments(shop).Get(ctx, web, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		pods, err := w.api.CoreV1().Pods(shop).List(ctx, metav1.ListOptions{LabelSelector: "app=" + web})
		if err != nil {
			return false, err
		}
		want := *d.Spec.Replicas
		return d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == want &&
			d.Status.AvailableReplicas == want && len(pods.Items) == int(want), nil
	})
}

// ready tells whether a node says so.
func ready(n corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
