package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/collector/metadata"
)

// settleAfter is how long nothing must have arrived until a change counts as
// arrived in full: much longer than the collector holds anything back.
const settleAfter = 500 * time.Millisecond

// recorder takes the time at which changes arrive: from the collector, as a
// subscriber, and beside it from the API server, as a plain watch.
type recorder struct {
	api  kubernetes.Interface
	node string

	mu        sync.Mutex
	last      time.Time                  // of the last event
	known     map[string]*metadata.Event // by UID
	announced map[string]time.Time       // when the API server told a version
	changes   []*recorded
}

// recorded is a change of the workload and what arrived because of it.
type recorded struct {
	command  string
	began    time.Time
	arrivals []arrival
}

// arrival is one event.
type arrival struct {
	what    string // "Pod created"
	version string // empty: no plain watch tells of it
	at      time.Time
}

func newRecorder(api kubernetes.Interface, node string) *recorder {
	return &recorder{api: api, node: node, known: map[string]*metadata.Event{}, announced: map[string]time.Time{}}
}

// watch watches the workload's objects in the API until ctx ends.
func (r *recorder) watch(ctx context.Context) error {
	all, here := metav1.ListOptions{}, metav1.ListOptions{FieldSelector: "spec.nodeName=" + r.node}
	for kind, open := range map[string]func() (watch.Interface, error){
		"Pod":        func() (watch.Interface, error) { return r.api.CoreV1().Pods(shop).Watch(ctx, here) },
		"Service":    func() (watch.Interface, error) { return r.api.CoreV1().Services(shop).Watch(ctx, all) },
		"Deployment": func() (watch.Interface, error) { return r.api.AppsV1().Deployments(shop).Watch(ctx, all) },
		"ReplicaSet": func() (watch.Interface, error) { return r.api.AppsV1().ReplicaSets(shop).Watch(ctx, all) },
	} {
		w, err := open()
		if err != nil {
			return fmt.Errorf("watch objects of kind %s in namespace %s: %w", kind, shop, err)
		}
		go func() { // ends with ctx
			for e := range w.ResultChan() {
				r.announce(e, time.Now())
			}
		}()
	}
	return nil
}

// announce notes when the API server told a version of an object.
func (r *recorder) announce(e watch.Event, now time.Time) {
	meta, status, ok := parts(e.Object)
	if !ok {
		return
	}
	v := versionOf(string(meta.UID), encode(meta), status)
	if e.Type == watch.Deleted {
		v = versionOf(string(meta.UID), "", "")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.announced[v]; !known {
		r.announced[v] = now
	}
}

// versionOf names a version of an object by what subscribers see of it.
func versionOf(uid, meta, status string) string { return uid + meta + status }

// parts returns what subscribers see of an object.
func parts(o runtime.Object) (meta *metav1.ObjectMeta, status string, ok bool) {
	switch o := o.(type) {
	case *corev1.Pod:
		text, err := json.Marshal(metadata.Status{PodIP: o.Status.PodIP})
		return &o.ObjectMeta, string(text), err == nil
	case *corev1.Service:
		return &o.ObjectMeta, "", true
	case *appsv1.Deployment:
		return &o.ObjectMeta, "", true
	case *appsv1.ReplicaSet:
		return &o.ObjectMeta, "", true
	}
	return nil, "", false
}

func encode(m *metav1.ObjectMeta) string {
	text, err := json.Marshal(metadata.Meta{
		GenerateName: m.GenerateName, Labels: m.Labels, Name: m.Name, Namespace: m.Namespace, UID: string(m.UID),
	})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// began starts a change: what arrives from now on is counted to it.
func (r *recorder) began(command string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, &recorded{command: command, began: time.Now()})
}

// settled blocks until something has arrived since began, and then nothing more
// for settleAfter.
func (r *recorder) settled(ctx context.Context) error {
	err := until(ctx, func(context.Context) (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		change := r.changes[len(r.changes)-1]
		return len(change.arrivals) > 0 && time.Since(r.last) > settleAfter, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the changes to arrive: %w", err)
	}
	return nil
}

// Connected implements subscriber.Observer.
func (r *recorder) Connected(time.Duration) {}

// Retrying implements subscriber.Observer.
func (r *recorder) Retrying(error, time.Duration) {}

// Event implements subscriber.Observer.
func (r *recorder) Event(e *metadata.Event) error {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.known[e.GetUid()]
	seen := e // what tells whose event it is
	if e.GetReason() == metadata.Delete {
		seen = before
		delete(r.known, e.GetUid())
	} else {
		r.known[e.GetUid()] = e
	}
	if seen == nil || len(r.changes) == 0 || !ofWorkload(seen) {
		return nil
	}
	r.last = now
	a := arrival{what: e.GetKind() + " " + describe(before, e), at: now}
	if ownChange(before, e) {
		a.version = versionOf(e.GetUid(), e.GetMeta(), e.GetStatus())
	}
	change := r.changes[len(r.changes)-1]
	change.arrivals = append(change.arrivals, a)
	return nil
}

// ofWorkload tells whether an event is about the workload's namespace.
func ofWorkload(e *metadata.Event) bool {
	var meta metadata.Meta
	return json.Unmarshal([]byte(e.GetMeta()), &meta) == nil && meta.Namespace == shop
}

// ownChange tells whether an event comes from a change of the object itself. A
// pod's references change with other objects, and what is not a pod comes to a
// node and leaves it with its pods.
func ownChange(before, e *metadata.Event) bool {
	if e.GetKind() != "Pod" {
		return e.GetReason() == metadata.Update
	}
	return e.GetReason() != metadata.Update || before.GetMeta() != e.GetMeta() || before.GetStatus() != e.GetStatus()
}

// describe says what an event changes.
func describe(before, e *metadata.Event) string {
	switch {
	case e.GetReason() == metadata.Delete && e.GetKind() == "Pod":
		return "deleted"
	case e.GetReason() == metadata.Delete:
		return "leaves the node"
	case e.GetReason() == metadata.Create || before == nil:
		return "created"
	case before.GetStatus() != e.GetStatus():
		return "gets its address"
	case services(before) < services(e):
		return "joins its Service"
	case services(before) > services(e):
		return "leaves its Service"
	}
	return "relabelled"
}

func services(e *metadata.Event) int {
	return len(e.GetRefs().GetResources()[metadata.KindService].GetList())
}

// contractKinds are the kinds that Falco's plugin asks for.
func contractKinds() []string {
	return []string{"Pod", "Namespace", "Deployment", "Service", "ReplicaSet", "ReplicationController"}
}
