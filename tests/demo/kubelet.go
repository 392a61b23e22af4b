package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	madeUpNode = "made-up-node"
	// heartbeat is how often the stand-in says that its node is well: the node
	// controller waits for 40 s.
	heartbeat = 5 * time.Second
)

// standIn plays the kubelet of a made-up node, where no pods can run: it says
// that they do, and lets go of those that are to end.
type standIn struct{ api kubernetes.Interface }

// start makes the node and blocks until pods may be bound to it; it plays until
// ctx ends.
func (k standIn) start(ctx context.Context) error {
	_, err := k.api.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: madeUpNode}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the made-up node: %w", err)
	}
	if err := k.beat(ctx); err != nil {
		return err
	}
	go k.play(ctx)
	return until(ctx, func(ctx context.Context) (bool, error) {
		n, err := k.api.CoreV1().Nodes().Get(ctx, madeUpNode, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return len(n.Spec.Taints) == 0, nil
	})
}

// play does what a kubelet tells the API server. What fails is tried again at
// once: it holds up nothing but this demo, which has a limit.
func (k standIn) play(ctx context.Context) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			_ = k.beat(ctx)
		case <-look.C:
			_ = k.pods(ctx)
		}
	}
}

// beat says that the node is ready.
func (k standIn) beat(ctx context.Context) error {
	n, err := k.api.CoreV1().Nodes().Get(ctx, madeUpNode, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("made-up node: %w", err)
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Capacity, n.Status.Allocatable = room, room
	n.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "StandIn", LastHeartbeatTime: metav1.Now(),
	}}
	if _, err := k.api.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("made-up node: %w", err)
	}
	return nil
}

// pods lets the node's new pods run, and its deleted ones go.
func (k standIn) pods(ctx context.Context) error {
	pods, err := k.api.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + madeUpNode})
	if err != nil {
		return err
	}
	for i, p := range pods.Items {
		switch {
		case p.DeletionTimestamp != nil:
			now := int64(0)
			err = k.api.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		case p.Status.PodIP == "":
			err = k.run(ctx, &pods.Items[i], address(pods.Items))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run says that a pod runs at an address.
func (k standIn) run(ctx context.Context, p *corev1.Pod, address string) error {
	now := metav1.Now()
	p.Status.Phase, p.Status.StartTime = corev1.PodRunning, &now
	p.Status.PodIP, p.Status.PodIPs = address, []corev1.PodIP{{IP: address}}
	for _, c := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	_, err := k.api.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}

// address returns one of the range for documentation that no pod has.
func address(pods []corev1.Pod) string {
	taken := map[string]bool{}
	for _, p := range pods {
		taken[p.Status.PodIP] = true
	}
	for i := 1; ; i++ {
		if a := fmt.Sprintf("192.0.2.%d", i); !taken[a] {
			return a
		}
	}
}
