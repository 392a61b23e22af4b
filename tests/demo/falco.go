package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/tests/falco/image"
)

// falcoArchive is where the image of the stand-in for Falco is written.
var falcoArchive = filepath.Join("bin", "image", "falco.tar")

// falcoNamespace knows nothing of Metawire.
const falcoNamespace = "metawire-demo-falco"

// buildFalco builds the image of the stand-in.
func (n *node) buildFalco() task {
	return task{"stand-in for Falco", func(ctx context.Context) error {
		return image.Build(ctx, falcoArchive)
	}}
}

// falcoDaemonSet is a Falco as anybody installs it.
func falcoDaemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"app.kubernetes.io/name": "falco"}
	grace := int64(1)
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "falco", Namespace: falcoNamespace, Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: &grace,
					Containers: []corev1.Container{{
						Name: "falco", Image: image.Falco, ImagePullPolicy: corev1.PullNever, Args: []string{"/usr/bin/falco"},
					}},
				},
			},
		},
	}
}

// falco applies a DaemonSet that says nothing of Metawire, and shows that its pod
// gets its node's metadata, and why.
func (n *node) falco(ctx context.Context, s *site) error {
	n.screen.title("Falco, as anybody installs it: a DaemonSet that knows nothing of Metawire")
	n.screen.line("(a stand-in, since Falco's own image cannot be had here: it reads Falco's configuration and does what its k8smeta plugin does)")
	if err := ensureNamespace(ctx, s.api, falcoNamespace); err != nil {
		return err
	}
	var pod corev1.Pod
	err := n.screen.step("$ kubectl -n "+falcoNamespace+" apply -f daemonset.yaml", func() (err error) {
		if err := n.applyFalco(ctx, s); err != nil {
			return err
		}
		pod, err = s.runningFalco(ctx)
		return err
	})
	if err != nil {
		return errors.Join(err, n.explain(ctx, s, falcoNamespace))
	}
	log, err := s.toldFalco(ctx, pod)
	if err != nil {
		return err
	}
	n.screen.title("$ kubectl -n " + falcoNamespace + " logs " + pod.Name)
	for _, line := range log {
		n.screen.line("  " + line)
	}
	args := []string{"explain", "pod", falcoNamespace + "/" + pod.Name, "--kubeconfig", s.kubeconfig}
	n.screen.title("$ bin/metawire " + strings.Join(args, " "))
	out, err := exec.CommandContext(ctx, filepath.Join("bin", "metawire"), args...).CombinedOutput()
	n.screen.line(strings.TrimRight(string(out), "\n"))
	if err != nil {
		return fmt.Errorf("metawire explain: %w", err)
	}
	return nil
}

// applyFalco makes the DaemonSet anew: one of an earlier demo is deleted first.
func (n *node) applyFalco(ctx context.Context, s *site) error {
	sets := s.api.AppsV1().DaemonSets(falcoNamespace)
	afterPods := metav1.DeletePropagationForeground
	if err := sets.Delete(ctx, "falco", metav1.DeleteOptions{PropagationPolicy: &afterPods}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the last demo's Falco: %w", err)
	}
	return until(ctx, func(ctx context.Context) (bool, error) {
		_, err := sets.Create(ctx, falcoDaemonSet(), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // on its way out
			return false, nil
		}
		return err == nil, err
	})
}

// runningFalco returns the pod on the node that is shown, once it runs.
func (s *site) runningFalco(ctx context.Context) (pod corev1.Pod, err error) {
	err = until(ctx, func(ctx context.Context) (bool, error) {
		pods, err := s.api.CoreV1().Pods(falcoNamespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + s.node})
		if err != nil {
			return false, err
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
				pod = p
				return true, nil
			}
		}
		return false, nil
	})
	return pod, err
}

// shownLines bounds what is shown of Falco's log.
const shownLines = 12

// toldFalco returns the start of a Falco's log once it tells of itself: then the
// node's metadata has arrived.
func (s *site) toldFalco(ctx context.Context, pod corev1.Pod) (lines []string, err error) {
	err = until(ctx, func(ctx context.Context) (bool, error) {
		log, err := s.api.CoreV1().Pods(falcoNamespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: "falco"}).DoRaw(ctx)
		if err != nil {
			return false, err
		}
		lines = strings.Split(strings.TrimSpace(string(log)), "\n")
		return strings.Contains(string(log), "Create Pod "+falcoNamespace+"/"+pod.Name), nil
	})
	if more := len(lines) - shownLines; more > 0 {
		lines = append(lines[:shownLines], fmt.Sprintf("(and %d lines more)", more))
	}
	return lines, err
}
