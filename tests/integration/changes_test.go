package integration_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/tests/falco/plugin"
)

// changes makes random changes to objects of few names in two namespaces, so
// that they are made, changed, re-owned, moved, deleted and made again all the
// time.
type changes struct {
	rand              *rand.Rand
	namespaces, nodes []string
	workloads         map[string]func(namespace, name string) client.Object
}

func newChanges(t *testing.T) *changes {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("random changes with seed %d", seed)
	namespaces := []string{newNamespace(t), newNamespace(t)}
	n := namespaces[0]
	return &changes{
		rand:       rand.New(rand.NewPCG(seed, 0)),
		namespaces: namespaces, nodes: []string{n + "-a", n + "-b", n + "-c"},
		workloads: workloads(),
	}
}

// subscribers is one for each node.
func (c *changes) subscribers(t *testing.T, target func() string) map[string]*plugin.Client {
	t.Helper()
	all := map[string]*plugin.Client{}
	for _, n := range c.nodes {
		all[n] = subscribe(t, n, target)
	}
	return all
}

// make makes n changes. One that the API server refuses, or that it cannot
// take in because it is down, is left out.
func (c *changes) make(ctx context.Context, n int) {
	for range n {
		_ = c.step(ctx)
	}
}

// background makes changes until the function that it returns is called, which
// waits for the last one.
func (c *changes) background(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			_ = c.step(ctx)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// step makes an object of a random kind and name or, if there is one by that
// name, changes or deletes it.
func (c *changes) step(ctx context.Context) error {
	ns := pick(c.rand, c.namespaces)
	name := fmt.Sprintf("x%d", c.rand.IntN(3))
	var o client.Object
	switch n := c.rand.IntN(10); {
	case n < 5:
		o = newPod(ns, fmt.Sprintf("x%d", c.rand.IntN(12)), pick(c.rand, c.nodes))
	case n == 5:
		o = newService(ns, name)
	case n == 6:
		o = newSlice(ns, name, fmt.Sprintf("x%d", c.rand.IntN(3)))
	default:
		o = c.workloads[pick(c.rand, slices.Sorted(maps.Keys(c.workloads)))](ns, name)
	}
	err := api.Get(ctx, client.ObjectKeyFromObject(o), o)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return err
	case err != nil:
		if err := c.vary(ctx, o); err != nil {
			return err
		}
		return api.Create(ctx, o)
	case c.rand.IntN(3) == 0:
		return deleteNow(ctx, o)
	default:
		if err := c.vary(ctx, o); err != nil {
			return err
		}
		return api.Update(ctx, o)
	}
}

// vary gives an object a random label and, by its kind, an owner or endpoints.
func (c *changes) vary(ctx context.Context, o client.Object) error {
	if s, ok := o.(*discoveryv1.EndpointSlice); ok {
		var pods corev1.PodList
		if err := api.List(ctx, &pods, client.InNamespace(pick(c.rand, c.namespaces))); err != nil {
			return err
		}
		var some []*corev1.Pod
		for i := range pods.Items {
			if c.rand.IntN(2) == 0 {
				some = append(some, &pods.Items[i])
			}
		}
		s.Endpoints = endpoints(some...)
		return nil
	}
	labels := maps.Clone(o.GetLabels())
	labels["version"] = fmt.Sprint(c.rand.IntN(1000))
	o.SetLabels(labels)
	owners := map[string][]string{
		"Pod":        {"ReplicaSet", "ReplicaSet", "Job", "StatefulSet", "DaemonSet", "ReplicationController"},
		"ReplicaSet": {"Deployment"},
		"Job":        {"CronJob"},
	}[kindOf(o)]
	if len(owners) == 0 {
		return nil
	}
	o.SetOwnerReferences(nil)
	owner := c.workloads[pick(c.rand, owners)](o.GetNamespace(), fmt.Sprintf("x%d", c.rand.IntN(3)))
	if err := api.Get(ctx, client.ObjectKeyFromObject(owner), owner); err != nil {
		return client.IgnoreNotFound(err)
	}
	owned(o, owner)
	return nil
}

// TestRandomChanges: after a burst of them every view is the API server's.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	c := started(t, setup{kubeconfig: plane.Kubeconfig()})
	changes := newChanges(t)
	subscribers := changes.subscribers(t, c.at)
	for range 4 {
		changes.make(t.Context(), 150)
		converge(t, subscribers)
	}
	for node, s := range subscribers {
		if s.Events() < 50 {
			t.Errorf("node %s: only %d events: this showed little", node, s.Events())
		}
	}
}
