package source

import (
	"iter"

	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/roster"
)

// Roster takes pods, nodes and namespaces in, beside the sink and before it.
// Calls for one kind come from one goroutine, in the order of the API.
type Roster interface {
	ApplyPod(p roster.Pod)
	DeletePod(uid string)
	// ReplacePods makes the pods the only ones.
	ReplacePods(pods iter.Seq[roster.Pod])
	ApplyNode(n roster.Node)
	DeleteNode(uid string)
	// ReplaceNodes makes the nodes the only ones.
	ReplaceNodes(nodes []roster.Node)
	ApplyNamespace(n roster.Namespace)
	DeleteNamespace(uid string)
	// ReplaceNamespaces makes the namespaces the only ones.
	ReplaceNamespaces(all []roster.Namespace)
}

// node is the kind that goes to the roster alone.
const node relation.Kind = "Node"

// trimmed is an object without what nobody needs.
type trimmed struct {
	relation.Object
	place  place             // of a pod
	node   *roster.Node      // of a node
	labels map[string]string // of a namespace
}

// namespace returns the roster's namespace.
func (t *trimmed) namespace() roster.Namespace {
	return roster.Namespace{Name: t.Name, UID: t.UID, Labels: t.labels}
}

// apply takes an object in.
func (w *watched) apply(t *trimmed) {
	switch {
	case w.roster == nil:
	case w.Kind.Kind == relation.Pod:
		w.roster.ApplyPod(t.place.pod(&t.Object))
	case w.Kind.Kind == relation.Namespace:
		w.roster.ApplyNamespace(t.namespace())
	case w.Kind.Kind == node:
		w.roster.ApplyNode(*t.node)
		return
	}
	w.sink.Apply(t.Object)
}

// remove takes an object out.
func (w *watched) remove(uid string) {
	switch {
	case w.roster == nil:
	case w.Kind.Kind == relation.Pod:
		w.roster.DeletePod(uid)
	case w.Kind.Kind == relation.Namespace:
		w.roster.DeleteNamespace(uid)
	case w.Kind.Kind == node:
		w.roster.DeleteNode(uid)
		return
	}
	w.sink.Delete(w.Kind.Kind, uid)
}

// replace makes the objects the only ones of their kind. It forgets each as it
// goes.
func (w *watched) replace(list []any) error {
	if w.Kind.Kind == node {
		return w.replaceNodes(list)
	}
	objects := make([]relation.Object, len(list))
	var places []place
	if w.roster != nil && w.Kind.Kind == relation.Pod {
		places = make([]place, len(list))
	}
	var namespaces []roster.Namespace
	for i, obj := range list {
		t, err := w.object(obj)
		if err != nil {
			return err
		}
		objects[i], list[i] = t.Object, nil
		if places != nil {
			places[i] = t.place
		}
		if w.Kind.Kind == relation.Namespace {
			namespaces = append(namespaces, t.namespace())
		}
	}
	if w.roster != nil && w.Kind.Kind == relation.Namespace {
		w.roster.ReplaceNamespaces(namespaces)
	}
	if places != nil {
		w.roster.ReplacePods(func(yield func(roster.Pod) bool) {
			for i := range places {
				if !yield(places[i].pod(&objects[i])) {
					return
				}
			}
		})
	}
	w.sink.Replace(w.Kind.Kind, objects)
	return nil
}

func (w *watched) replaceNodes(list []any) error {
	nodes := make([]roster.Node, len(list))
	for i, obj := range list {
		t, err := w.object(obj)
		if err != nil {
			return err
		}
		nodes[i] = *t.node
	}
	w.roster.ReplaceNodes(nodes)
	return nil
}
