package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

// runReflector is the hidden command "reflector": the floor of what it costs
// to follow all pods. It has one reflector with protobuf and keeps of a pod
// nothing but its name, until ctx ends. It writes the number of pods to out
// when it has them.
func runReflector(ctx context.Context, out io.Writer, args []string) error {
	flags := flag.NewFlagSet("reflector", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "the cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client, err := newClient(*kubeconfig)
	if err != nil {
		return err
	}
	pods := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.CoreV1().Pods("").List(ctx, o)
		},
		WatchFuncWithContext: client.CoreV1().Pods("").Watch,
	}, client)
	store := &bareStore{synced: func(n int) { fmt.Fprintln(out, n) }}
	cache.NewReflectorWithOptions(pods, &corev1.Pod{}, store, cache.ReflectorOptions{}).RunWithContext(ctx)
	return nil
}

// bareStore is a cache.ReflectorStore that keeps nothing.
type bareStore struct {
	synced func(objects int)
	once   sync.Once
}

var _ cache.TransformingStore = (*bareStore)(nil)

func (*bareStore) Add(any) error    { return nil }
func (*bareStore) Update(any) error { return nil }
func (*bareStore) Delete(any) error { return nil }
func (*bareStore) Resync() error    { return nil }

// Replace takes the first list, and later ones after a lost watch.
func (s *bareStore) Replace(objects []any, _ string) error {
	s.once.Do(func() { s.synced(len(objects)) })
	return nil
}

// Transformer trims pods as they arrive.
func (*bareStore) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		pod, ok := o.(*corev1.Pod)
		if !ok {
			return o, nil
		}
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		}}, nil
	}
}
