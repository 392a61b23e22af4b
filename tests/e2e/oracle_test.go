package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/collector/metadata"
)

// view is what a subscriber knows: a text for each UID.
type view map[string]string

// entry is that text.
func entry(kind, meta, status string, refs map[string][]string) string {
	text, _ := json.Marshal(refs) //nolint:errchkjson // strings only
	return strings.Join([]string{kind, meta, status, string(text)}, " ")
}

// viewOf returns what a subscriber knows that has this table.
func viewOf(table map[string]*metadata.Event) view {
	v := view{}
	for uid, e := range table {
		var refs map[string][]string
		if e.Refs != nil {
			refs = map[string][]string{}
			for kind, list := range e.Refs.GetResources() {
				refs[kind] = append([]string{}, list.GetList()...)
			}
		}
		v[uid] = entry(e.GetKind(), e.GetMeta(), e.GetStatus(), refs)
	}
	return v
}

// diff says how two views differ, shortly.
func (v view) diff(want view) error {
	var errs []error
	for _, uid := range slices.Sorted(maps.Keys(want)) {
		if v[uid] != want[uid] {
			errs = append(errs, fmt.Errorf("%s is %q, want %q", uid, v[uid], want[uid]))
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(v)) {
		if _, ok := want[uid]; !ok {
			errs = append(errs, fmt.Errorf("%s is still there: %q", uid, v[uid]))
		}
	}
	return errors.Join(errs...)
}

// snapshot holds the objects of the whole cluster, by UID, of one kind each.
type snapshot struct {
	pods   []corev1.Pod
	slices []discoveryv1.EndpointSlice
	others map[string]map[string]*metav1.ObjectMeta // kind -> UID
}

// expected works out by brute force, from full lists, what the plugin must know
// of the node: of the kinds that it asks for.
func (w *world) expected(ctx context.Context) (view, error) {
	s, err := w.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v := view{}
	see := func(kind, uid string) {
		if m := s.others[kind][uid]; m != nil {
			v[uid] = entry(kind, metaOf(m), "", nil)
		}
	}
	for _, p := range s.pods {
		if p.Spec.NodeName != w.node {
			continue
		}
		refs := s.refs(p)
		for kind, uids := range refs {
			for _, uid := range uids {
				see(kind, uid)
			}
		}
		status := "{}"
		if p.Status.PodIP != "" {
			status = fmt.Sprintf(`{"podIP":%q}`, p.Status.PodIP)
		}
		v[string(p.UID)] = entry("Pod", metaOf(&p.ObjectMeta), status, refs)
	}
	return v, nil
}

// refs are a pod's references: kind -> UIDs.
func (s *snapshot) refs(p corev1.Pod) map[string][]string {
	refs := map[string][]string{"Service": {}}
	for uid, m := range s.others["Namespace"] {
		if m.Name == p.Namespace {
			refs["Namespace"] = []string{uid}
		}
	}
	if c := metav1.GetControllerOf(&p); c != nil {
		refs[c.Kind] = []string{string(c.UID)}
		if set := s.others["ReplicaSet"][string(c.UID)]; set != nil {
			if c := metav1.GetControllerOf(set); c != nil {
				refs[c.Kind] = []string{string(c.UID)}
			}
		}
	}
	for uid, m := range s.others["Service"] {
		if m.Namespace == p.Namespace && s.serves(m.Name, p) {
			refs["Service"] = append(refs["Service"], uid)
		}
	}
	slices.Sort(refs["Service"])
	return refs
}

// serves tells whether the pod is an endpoint of the Service of its namespace.
func (s *snapshot) serves(service string, p corev1.Pod) bool {
	for _, slice := range s.slices {
		if slice.Namespace != p.Namespace || slice.Labels[discoveryv1.LabelServiceName] != service {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.TargetRef != nil && e.TargetRef.UID == p.UID {
				return true
			}
		}
	}
	return false
}

func (w *world) snapshot(ctx context.Context) (*snapshot, error) {
	all := metav1.ListOptions{}
	core, apps := w.api.CoreV1(), w.api.AppsV1()
	pods, err1 := core.Pods("").List(ctx, all)
	ends, err2 := w.api.DiscoveryV1().EndpointSlices("").List(ctx, all)
	namespaces, err3 := core.Namespaces().List(ctx, all)
	services, err4 := core.Services("").List(ctx, all)
	controllers, err5 := core.ReplicationControllers("").List(ctx, all)
	deployments, err6 := apps.Deployments("").List(ctx, all)
	sets, err7 := apps.ReplicaSets("").List(ctx, all)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return nil, err
	}
	s := &snapshot{pods: pods.Items, slices: ends.Items, others: map[string]map[string]*metav1.ObjectMeta{}}
	add := func(kind string, m *metav1.ObjectMeta) {
		if s.others[kind] == nil {
			s.others[kind] = map[string]*metav1.ObjectMeta{}
		}
		s.others[kind][string(m.UID)] = m
	}
	for i := range namespaces.Items {
		add("Namespace", &namespaces.Items[i].ObjectMeta)
	}
	for i := range services.Items {
		add("Service", &services.Items[i].ObjectMeta)
	}
	for i := range controllers.Items {
		add("ReplicationController", &controllers.Items[i].ObjectMeta)
	}
	for i := range deployments.Items {
		add("Deployment", &deployments.Items[i].ObjectMeta)
	}
	for i := range sets.Items {
		add("ReplicaSet", &sets.Items[i].ObjectMeta)
	}
	return s, nil
}

// metaOf writes the metadata as the contract has it.
func metaOf(m *metav1.ObjectMeta) string {
	fields := map[string]any{"name": m.Name, "uid": m.UID}
	if m.GenerateName != "" {
		fields["generateName"] = m.GenerateName
	}
	if len(m.Labels) > 0 {
		fields["labels"] = m.Labels
	}
	if m.Namespace != "" {
		fields["namespace"] = m.Namespace
	}
	text, _ := json.Marshal(fields) //nolint:errchkjson // strings only
	return string(text)
}
