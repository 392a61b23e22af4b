package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/tests/falco/plugin"
)

// allKinds are the kinds that a subscriber can name, by the plugin's names.
func allKinds() []string {
	return []string{"Pod", "Namespace", "Deployment", "Service", "ReplicaSet", "ReplicaController",
		"DaemonSet", "StatefulSet", "Job", "CronJob"}
}

// subscribe starts a plugin for the node that wants every kind. At the end of
// the test it reports what was against the contract.
func subscribe(t *testing.T, node string, target func() string) *plugin.Client {
	t.Helper()
	c := plugin.Start(plugin.Options{Node: node, Kinds: allKinds(), Target: target})
	t.Cleanup(func() {
		c.Stop()
		for _, f := range c.Faults() {
			t.Errorf("node %s: %s", node, f)
		}
	})
	return c
}

// at is a target that never moves.
func (c *collector) at() string { return c.stream }

// converge waits until what the subscriber of each node knows is what the API
// server says.
func converge(t *testing.T, subscribers map[string]*plugin.Client) {
	t.Helper()
	eventually(t, func() error {
		truth, err := readAPI(t.Context())
		if err != nil {
			return err
		}
		for node, s := range subscribers {
			if diff := cmp.Diff(truth.view(node), s.Table(), protocmp.Transform()); diff != "" {
				return fmt.Errorf("node %s (-API +subscriber):\n%s", node, diff)
			}
		}
		return nil
	})
}

// truth is all that the API server holds of our kinds.
type truth struct {
	objects map[string]map[string]client.Object // kind, UID
	slices  []discoveryv1.EndpointSlice
}

func readAPI(ctx context.Context) (*truth, error) {
	w := &truth{objects: map[string]map[string]client.Object{}}
	for kind, list := range map[string]client.ObjectList{
		"Namespace": &corev1.NamespaceList{}, "Pod": &corev1.PodList{}, "Service": &corev1.ServiceList{},
		"ReplicationController": &corev1.ReplicationControllerList{}, "Deployment": &appsv1.DeploymentList{},
		"ReplicaSet": &appsv1.ReplicaSetList{}, "DaemonSet": &appsv1.DaemonSetList{}, "StatefulSet": &appsv1.StatefulSetList{},
		"Job": &batchv1.JobList{}, "CronJob": &batchv1.CronJobList{},
	} {
		if err := api.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		w.objects[kind] = map[string]client.Object{}
		err := meta.EachListItem(list, func(o runtime.Object) error {
			c, ok := o.(client.Object)
			if !ok {
				return fmt.Errorf("list %s: unexpected %T", kind, o)
			}
			w.objects[kind][string(c.GetUID())] = c
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var all discoveryv1.EndpointSliceList
	if err := api.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list endpointslices: %w", err)
	}
	w.slices = all.Items
	return w, nil
}

// view works out by brute force, from the contract alone, what a subscriber of
// the node must know.
func (w *truth) view(node string) map[string]*metadata.Event {
	view := map[string]*metadata.Event{}
	for uid, o := range w.objects["Pod"] {
		p, ok := o.(*corev1.Pod)
		if !ok || p.Spec.NodeName != node {
			continue
		}
		refs := map[string][]string{"Service": {}}
		related := func(kind, namespace, uid string) {
			if o := w.objects[kind][uid]; o != nil && o.GetNamespace() == namespace {
				view[uid] = event(kind, o)
			}
		}
		for uid, ns := range w.objects["Namespace"] {
			if ns.GetName() == p.Namespace {
				related("Namespace", "", uid)
				refs["Namespace"] = []string{uid}
			}
		}
		if c := metav1.GetControllerOf(p); c != nil {
			related(c.Kind, p.Namespace, string(c.UID))
			refs[c.Kind] = append(refs[c.Kind], string(c.UID))
			if owner := w.objects[c.Kind][string(c.UID)]; owner != nil && owner.GetNamespace() == p.Namespace && (c.Kind == "ReplicaSet" || c.Kind == "Job") {
				if cc := metav1.GetControllerOf(owner); cc != nil {
					related(cc.Kind, p.Namespace, string(cc.UID))
					if c.Kind == "ReplicaSet" {
						refs[cc.Kind] = append(refs[cc.Kind], string(cc.UID))
					}
				}
			}
		}
		for _, uid := range w.services(p) {
			related("Service", p.Namespace, uid)
			refs["Service"] = append(refs["Service"], uid)
		}
		e := event("Pod", p)
		status := map[string]string{}
		if p.Status.PodIP != "" {
			status["podIP"] = p.Status.PodIP
		}
		e.Status = proto.String(text(status))
		e.Refs = &metadata.References{Resources: map[string]*metadata.ListOfStrings{}}
		for kind, uids := range refs {
			slices.Sort(uids)
			e.Refs.Resources[kind] = &metadata.ListOfStrings{List: uids}
		}
		view[uid] = e
	}
	return view
}

// services returns the services whose slices name the pod.
func (w *truth) services(p *corev1.Pod) []string {
	found := map[string]bool{}
	for i := range w.slices {
		s := &w.slices[i]
		if s.Namespace != p.Namespace || !slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool {
			return e.TargetRef != nil && e.TargetRef.Kind == "Pod" && e.TargetRef.UID == p.UID
		}) {
			continue
		}
		for uid, o := range w.objects["Service"] {
			if o.GetNamespace() == s.Namespace && o.GetName() == s.Labels[discoveryv1.LabelServiceName] {
				found[uid] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func event(kind string, o client.Object) *metadata.Event {
	m := map[string]any{"name": o.GetName(), "uid": string(o.GetUID())}
	if o.GetNamespace() != "" {
		m["namespace"] = o.GetNamespace()
	}
	if o.GetGenerateName() != "" {
		m["generateName"] = o.GetGenerateName()
	}
	if len(o.GetLabels()) > 0 {
		m["labels"] = o.GetLabels()
	}
	return &metadata.Event{Uid: string(o.GetUID()), Kind: kind, Meta: proto.String(text(m))}
}

// text is JSON of a map: with sorted keys, as the contract wants it.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
