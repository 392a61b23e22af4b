// Package relation knows which nodes every Kubernetes object concerns, and
// keeps that up to date as objects come, change and go in any order. It is
// pure: no I/O, no goroutines, no locks.
//
// A pod concerns the node it is bound to. A namespace concerns the nodes of
// its pods; an owner those of the pods it controls, directly or through a
// ReplicaSet or a Job; a service those of the pods in its EndpointSlices.
// Everything is keyed by UID, so an object that is deleted and made again under
// its old name is another object.
package relation

import (
	"hash/maphash"

	"github.com/metawire/metawire/collector/metadata"
)

// Kind is an object's kind as Kubernetes writes it.
type Kind string

// The kinds that the index holds. EndpointSlices are never sent to anyone:
// they tell which pods a service concerns.
const (
	Namespace             Kind = "Namespace"
	Deployment            Kind = "Deployment"
	ReplicaSet            Kind = "ReplicaSet"
	DaemonSet             Kind = "DaemonSet"
	StatefulSet           Kind = "StatefulSet"
	ReplicationController Kind = "ReplicationController"
	Job                   Kind = "Job"
	CronJob               Kind = "CronJob"
	Service               Kind = metadata.KindService
	Pod                   Kind = "Pod"
	EndpointSlice         Kind = "EndpointSlice"
)

// Kinds are the kinds that subscribers can be sent, pods last: what a pod
// refers to goes before it.
func Kinds() []Kind {
	return []Kind{Namespace, Deployment, ReplicaSet, DaemonSet, StatefulSet, ReplicationController, Job, CronJob, Service, Pod}
}

// Owner is an object's controller owner reference; the zero value is none.
type Owner struct{ Kind, UID string }

// mayOwn reports whether objects of the kind control others.
func mayOwn(k Kind) bool {
	return k != Namespace && k != Service && k != Pod && k != EndpointSlice
}

// Object is one version of an object, trimmed to what the index needs.
type Object struct {
	Kind      Kind
	UID       string
	Namespace string // empty for a Namespace
	Name      string
	// Event is what metadata.Encode returned for this version; the index keeps
	// it. Nil for an EndpointSlice.
	Event []byte
	Owner Owner
	// Node is the name of the node a pod is bound to, empty while it is not.
	Node string
	// Service is the name of the service an EndpointSlice belongs to, in its
	// namespace; Endpoints are the UIDs that its endpoints refer to.
	Service   string
	Endpoints []string
}

// Change tells that what one node knows of one object may be out of date.
type Change struct {
	Node   string
	Entity *Entity
	// Concerns says whether the object concerns the node now.
	Concerns bool
}

// Entity is an object as subscribers know it.
type Entity struct {
	kind   Kind
	uid    string
	event  []byte // as encoded by the source, for pods extended by refs on demand
	plain  int    // the length of event without refs
	sum    uint64 // of event with refs; 0 until asked for
	pod    *pod   // of one of the two it is the entity
	object *object
}

// Kind returns the object's kind.
func (e *Entity) Kind() Kind { return e.kind }

// UID returns the object's UID.
func (e *Entity) UID() string { return e.uid }

// Event returns the entity's Create event. It is made once per version of the
// object and its references (the second result is true when this call made it),
// shared by all callers, and must not be modified.
func (e *Entity) Event() (event []byte, made bool) {
	if e.pod == nil || len(e.event) > e.plain {
		return e.event, false
	}
	e.event = metadata.AppendRefs(e.event, e.pod.refs())
	return e.event, true
}

// Sum returns a hash of the event, made once per version: two events with one
// sum say the same, but for a chance of one in 2^64. The seed must always be the
// same.
func (e *Entity) Sum(seed maphash.Seed) uint64 {
	if e.sum == 0 {
		event, _ := e.Event()
		e.sum = maphash.Bytes(seed, event)
	}
	return e.sum
}

// setPlain replaces the event but for refs.
func (e *Entity) setPlain(event []byte) {
	e.event, e.plain, e.sum = event, len(event), 0
}

// dropRefs forgets the encoded references: they have changed.
func (e *Entity) dropRefs() {
	e.event, e.sum = e.event[:e.plain:e.plain], 0
}
