// Package metadata is the wire form of the stream: the generated code of
// metadata.proto, and hand-made encoders of an Event, so that the bytes of an
// object are made once and shared by every subscriber.
//
// An object's event is what Encode returns, for a pod extended by AppendRefs. It
// is a Create; AsUpdate makes an Update of it without touching it.
package metadata

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

//go:generate protoc --proto_path=../.. --go_out=../.. --go_opt=module=github.com/metawire/metawire --go-grpc_out=../.. --go-grpc_opt=module=github.com/metawire/metawire collector/metadata/metadata.proto

// The reasons of an Event.
const (
	Create = "Create"
	Update = "Update"
	Delete = "Delete"
)

// Field numbers of metadata.proto that are encoded by hand here.
const (
	eventReason   protowire.Number = 1
	eventUID      protowire.Number = 2
	eventKind     protowire.Number = 3
	eventMeta     protowire.Number = 4
	eventStatus   protowire.Number = 6
	eventRefs     protowire.Number = 7
	refsResources protowire.Number = 1
	mapKey        protowire.Number = 1
	mapValue      protowire.Number = 2
	listList      protowire.Number = 1
)

// KindService is the kind that a pod's references always hold, even empty.
const KindService = "Service"

// Meta is what a subscriber is told of an object's metadata. The field order
// is the sorted order of the JSON keys: the plugin's contract is the bytes of
// json.Marshal of a map.
type Meta struct {
	GenerateName string            `json:"generateName,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Name         string            `json:"name"`
	Namespace    string            `json:"namespace,omitempty"`
	UID          string            `json:"uid"`
}

// Status is what a subscriber is told of a pod's status.
type Status struct {
	PodIP string `json:"podIP,omitempty"`
}

// Ref names one object that a pod refers to.
type Ref struct{ Kind, UID string }

// Encode returns a Create, but for refs. The status is nil for every kind but
// Pod.
func Encode(kind string, m Meta, s *Status) []byte {
	var few [512]byte // a longer one is on the heap
	meta := m.appendJSON(few[:0])
	size := sizeString(eventReason, Create) + sizeString(eventUID, m.UID) + sizeString(eventKind, kind) + sizeBytes(eventMeta, len(meta))
	var short [64]byte
	status := short[:0]
	if s != nil {
		status = s.appendJSON(status)
		size += sizeBytes(eventStatus, len(status))
	}
	b := make([]byte, 0, size)
	b = appendString(b, eventReason, Create)
	b = appendString(b, eventUID, m.UID)
	b = appendString(b, eventKind, kind)
	b = appendBytes(b, eventMeta, meta)
	if s != nil {
		b = appendBytes(b, eventStatus, status)
	}
	return b
}

// EncodeDeleted returns a Delete.
func EncodeDeleted(kind, uid string) []byte {
	b := make([]byte, 0, sizeString(eventReason, Delete)+sizeString(eventUID, uid)+sizeString(eventKind, kind))
	b = appendString(b, eventReason, Delete)
	b = appendString(b, eventUID, uid)
	return appendString(b, eventKind, kind)
}

// AppendRefs returns a new slice: the event, then the references. It sorts refs and
// drops what it holds twice.
func AppendRefs(event []byte, refs []Ref) []byte {
	slices.SortFunc(refs, func(a, b Ref) int {
		if c := strings.Compare(a.Kind, b.Kind); c != 0 {
			return c
		}
		return strings.Compare(a.UID, b.UID)
	})
	refs = slices.Compact(refs)
	size, services := 0, false
	for group := range byKind(refs) {
		size += protowire.SizeTag(refsResources) + protowire.SizeBytes(sizeGroup(group[0].Kind, group))
		services = services || group[0].Kind == KindService
	}
	if !services {
		size += protowire.SizeTag(refsResources) + protowire.SizeBytes(sizeGroup(KindService, nil))
	}
	b := make([]byte, 0, len(event)+sizeBytes(eventRefs, size))
	b = append(b, event...)
	b = protowire.AppendTag(b, eventRefs, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	for group := range byKind(refs) {
		b = appendGroup(b, group[0].Kind, group)
	}
	if !services {
		b = appendGroup(b, KindService, nil)
	}
	return b
}

// AsUpdate returns the two halves of an Update that says the same as a Create.
// Neither may be modified.
func AsUpdate(create []byte) (head, rest []byte) {
	return updateHead(), create[sizeString(eventReason, Create):]
}

func updateHead() []byte { return []byte("\x0a\x06" + Update) }

// byKind yields the runs of one kind in sorted refs.
func byKind(refs []Ref) func(yield func([]Ref) bool) {
	return func(yield func([]Ref) bool) {
		for len(refs) > 0 {
			n := 1
			for n < len(refs) && refs[n].Kind == refs[0].Kind {
				n++
			}
			if !yield(refs[:n]) {
				return
			}
			refs = refs[n:]
		}
	}
}

// sizeGroup is the size of one map entry: a kind and its list of UIDs.
func sizeGroup(kind string, refs []Ref) int {
	return sizeString(mapKey, kind) + sizeBytes(mapValue, sizeList(refs))
}

func sizeList(refs []Ref) (size int) {
	for _, r := range refs {
		size += sizeString(listList, r.UID)
	}
	return size
}

func appendGroup(b []byte, kind string, refs []Ref) []byte {
	b = protowire.AppendTag(b, refsResources, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeGroup(kind, refs)))
	b = appendString(b, mapKey, kind)
	b = protowire.AppendTag(b, mapValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeList(refs)))
	for _, r := range refs {
		b = appendString(b, listList, r.UID)
	}
	return b
}

func sizeBytes(n protowire.Number, length int) int {
	return protowire.SizeTag(n) + protowire.SizeBytes(length)
}

func sizeString(n protowire.Number, s string) int { return sizeBytes(n, len(s)) }

func appendString(b []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendBytes(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}
