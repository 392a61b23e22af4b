package main

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// changeLabel is what a change sets on a pod: the change's number, or a value
// that is no number for a change that nobody measures.
const changeLabel = "bench.metawire.dev/change"

// newClient returns a client that speaks protobuf, without a rate limit of its
// own, over a connection that it shares with no other client.
func newClient(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	config.ContentType = runtime.ContentTypeProtobuf
	config.QPS = -1
	config.Dial = (&net.Dialer{}).DialContext
	return kubernetes.NewForConfig(config)
}

// label changes a pod's changeLabel.
func label(ctx context.Context, client *kubernetes.Clientset, p pod, value string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, changeLabel, value)
	_, err := client.CoreV1().Pods(p.namespace).Patch(ctx, p.name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// countPods returns how many pods the API server has, by a consistent read.
func countPods(ctx context.Context, client *kubernetes.Clientset) (int, error) {
	l, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, fmt.Errorf("count pods: %w", err)
	}
	n := len(l.Items)
	if l.RemainingItemCount != nil {
		n += int(*l.RemainingItemCount)
	}
	return n, nil
}

// watchPods calls onChange with the number of each measured change of a pod,
// as a plain watch of the API server sees it. It blocks until the watch stands;
// the watch ends with ctx, and failed then says nothing.
func watchPods(ctx context.Context, client *kubernetes.Clientset, onChange func(number int)) (failed <-chan error, err error) {
	l, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	version := l.ResourceVersion
	w, err := client.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		// The API server closes the watch of a client that does not keep up,
		// as happens to this process on a busy machine: watch on.
		for err == nil && ctx.Err() == nil {
			if version, err = readWatch(w, version, onChange); err == nil {
				w, err = client.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{ResourceVersion: version})
			}
		}
		if ctx.Err() == nil {
			ended <- fmt.Errorf("watch pods from version %s: %w", version, err)
		}
	}()
	return ended, nil
}

// readWatch reads a watch until it is closed and returns the last version.
func readWatch(w watch.Interface, version string, onChange func(number int)) (string, error) {
	defer w.Stop()
	for e := range w.ResultChan() {
		pod, ok := e.Object.(*corev1.Pod)
		if !ok {
			return version, apierrors.FromObject(e.Object)
		}
		version = pod.ResourceVersion
		if n, err := strconv.Atoi(pod.Labels[changeLabel]); err == nil {
			onChange(n)
		}
	}
	return version, nil
}
