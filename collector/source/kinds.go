package source

import (
	"unicode/utf8"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
)

// Kind is one kind of object that the collector watches.
type Kind struct {
	Kind     relation.Kind
	Resource schema.GroupVersionResource
	// Required kinds must be listed before the collector is ready; any other
	// may be refused by the API server.
	Required bool
	// decode is set for the kinds of which more than metadata is needed.
	decode *decoder
}

// decoder says how a kind of which more than metadata is needed is decoded.
// Every other kind is watched as PartialObjectMetadata.
type decoder struct {
	object  apiObject
	list    runtime.Object
	trimmed func(obj runtime.Object) trimmed
}

// Kinds returns the table of kinds: one watch each. The chart grants list and
// watch on exactly these. Nodes are watched for the roster only.
func Kinds() []Kind {
	core := schema.GroupVersion{Version: "v1"}
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	batch := schema.GroupVersion{Group: "batch", Version: "v1"}
	return []Kind{
		{Kind: relation.Namespace, Resource: core.WithResource("namespaces"), Required: true},
		{Kind: relation.Pod, Resource: core.WithResource("pods"), Required: true, decode: podDecoder()},
		{Kind: relation.Service, Resource: core.WithResource("services")},
		{Kind: relation.ReplicationController, Resource: core.WithResource("replicationcontrollers")},
		{Kind: relation.Deployment, Resource: apps.WithResource("deployments")},
		{Kind: relation.ReplicaSet, Resource: apps.WithResource("replicasets")},
		{Kind: relation.DaemonSet, Resource: apps.WithResource("daemonsets")},
		{Kind: relation.StatefulSet, Resource: apps.WithResource("statefulsets")},
		{Kind: relation.Job, Resource: batch.WithResource("jobs")},
		{Kind: relation.CronJob, Resource: batch.WithResource("cronjobs")},
		{Kind: relation.EndpointSlice, Resource: discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), decode: sliceDecoder()},
		{Kind: node, Resource: core.WithResource("nodes"), decode: nodeDecoder()},
	}
}

// trim makes of an API object what the index needs.
func (k *Kind) trim(obj runtime.Object) trimmed {
	if k.decode != nil {
		return k.decode.trimmed(obj)
	}
	m, _ := obj.(*metav1.PartialObjectMetadata)
	t := trimmed{Object: trimMeta(k.Kind, &m.ObjectMeta, nil)}
	if k.Kind == relation.Namespace {
		t.labels = m.Labels
	}
	return t
}

// trimMeta holds for every kind that is sent to subscribers.
func trimMeta(kind relation.Kind, m *metav1.ObjectMeta, status *metadata.Status) relation.Object {
	o := relation.Object{
		Kind:      kind,
		UID:       string(m.UID),
		Namespace: m.Namespace,
		Name:      m.Name,
		Event: metadata.Encode(string(kind), metadata.Meta{
			GenerateName: m.GenerateName,
			Labels:       m.Labels,
			Name:         m.Name,
			Namespace:    m.Namespace,
			UID:          string(m.UID),
		}, status),
	}
	// The API server does not look at a reference closely, and a subscriber
	// refuses a message with text that is no text.
	if c := metav1.GetControllerOfNoCopy(m); c != nil && utf8.ValidString(c.Kind) && utf8.ValidString(string(c.UID)) {
		o.Owner = relation.Owner{Kind: c.Kind, UID: string(c.UID)}
	}
	return o
}

func podDecoder() *decoder {
	return &decoder{
		object: &slimPod{},
		list:   &slimList[slimPod, *slimPod]{},
		trimmed: func(obj runtime.Object) trimmed {
			p, _ := obj.(*slimPod)
			o := trimMeta(relation.Pod, &p.ObjectMeta, &metadata.Status{PodIP: p.ip})
			o.Node = p.node
			return trimmed{Object: o, place: p.place()}
		},
	}
}

func sliceDecoder() *decoder {
	return &decoder{
		object: &slimSlice{},
		list:   &slimList[slimSlice, *slimSlice]{},
		trimmed: func(obj runtime.Object) trimmed {
			s, _ := obj.(*slimSlice)
			return trimmed{Object: relation.Object{
				Kind:      relation.EndpointSlice,
				UID:       string(s.UID),
				Namespace: s.Namespace,
				Name:      s.Name,
				Service:   s.Labels[discoveryv1.LabelServiceName],
				Endpoints: s.targets,
			}}
		},
	}
}

func nodeDecoder() *decoder {
	return &decoder{
		object: &slimNode{},
		list:   &slimList[slimNode, *slimNode]{},
		trimmed: func(obj runtime.Object) trimmed {
			s, _ := obj.(*slimNode)
			return trimmed{Object: relation.Object{Kind: node, UID: string(s.UID), Name: s.Name}, node: s.node()}
		},
	}
}

// stripped keeps of metadata what trimMeta reads, and the resourceVersion, by
// which a reflector goes on.
func stripped(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		UID:             m.UID,
		Namespace:       m.Namespace,
		Name:            m.Name,
		GenerateName:    m.GenerateName,
		Labels:          m.Labels,
		OwnerReferences: m.OwnerReferences,
		ResourceVersion: m.ResourceVersion,
	}
}
