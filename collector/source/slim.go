package source

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/internal/wiring"
)

// Field numbers of Kubernetes' protobuf messages: k8s.io/api/core/v1,
// k8s.io/api/discovery/v1 and k8s.io/apimachinery/pkg/apis/meta/v1,
// generated.proto. They are part of its API and never change.
const (
	objectMetadata protowire.Number = 1 // of Pod, Node, EndpointSlice and lists

	sliceEndpoints    protowire.Number = 2
	endpointTargetRef protowire.Number = 4
	targetRefKind     protowire.Number = 1
	targetRefUID      protowire.Number = 4

	listItems protowire.Number = 2

	metaName            protowire.Number = 1
	metaGenerateName    protowire.Number = 2
	metaNamespace       protowire.Number = 3
	metaUID             protowire.Number = 5
	metaResourceVersion protowire.Number = 6
	metaCreated         protowire.Number = 8
	metaLabels          protowire.Number = 11
	metaAnnotations     protowire.Number = 12
	metaOwnerReferences protowire.Number = 13

	timeSeconds protowire.Number = 1

	entryKey   protowire.Number = 1
	entryValue protowire.Number = 2
)

// slimMeta is an object of which nothing is decoded but what the index needs:
// most of an object's bytes are containers and managed fields, and decoding
// those would be most of the collector's work.
type slimMeta struct {
	metav1.TypeMeta
	metav1.ObjectMeta
}

// slimSlice is an EndpointSlice; targets are the UIDs of the pods that its
// endpoints refer to.
type slimSlice struct {
	slimMeta
	targets []string
}

// slimList is a list of either.
type slimList[T any, P message[T]] struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []T
}

// message is what the protobuf serializer wants of a type.
type message[T any] interface {
	*T
	runtime.Object
	Reset()
	Unmarshal(b []byte) error
}

// decode reads metadata, and hands the object's other fields to rest.
func (m *slimMeta) decode(b []byte, rest func(protowire.Number, []byte) error) error {
	return fields(b, func(n protowire.Number, v []byte) error {
		if n == objectMetadata {
			return fields(v, m.field)
		}
		return rest(n, v)
	})
}

// field reads one field of metadata.
func (m *slimMeta) field(n protowire.Number, v []byte) error {
	switch n {
	case metaName:
		m.Name = string(v)
	case metaGenerateName:
		m.GenerateName = string(v)
	case metaNamespace:
		m.Namespace = string(v)
	case metaUID:
		m.UID = types.UID(v)
	case metaResourceVersion:
		m.ResourceVersion = string(v)
	case metaLabels:
		key, value, err := entry(v)
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[string(key)] = string(value)
		return err
	case metaAnnotations:
		key, value, err := entry(v)
		switch string(key) {
		case metav1.InitialEventsAnnotationKey, // the reflector looks for it
			wiring.InjectAnnotation, wiring.StatusAnnotation:
			if m.Annotations == nil {
				m.Annotations = map[string]string{}
			}
			m.Annotations[string(key)] = string(value)
		}
		return err
	case metaCreated:
		created, err := seconds(v)
		m.CreationTimestamp = metav1.Time{Time: created}
		return err
	case metaOwnerReferences:
		var r metav1.OwnerReference
		if err := r.Unmarshal(v); err != nil {
			return err
		}
		if r.Controller != nil && *r.Controller {
			m.OwnerReferences = append(m.OwnerReferences, r)
		}
	}
	return nil
}

// Reset implements message.
func (s *slimSlice) Reset() { *s = slimSlice{} }

// Unmarshal implements message.
func (s *slimSlice) Unmarshal(b []byte) error {
	return s.decode(b, func(n protowire.Number, v []byte) error {
		if n != sliceEndpoints {
			return nil
		}
		return fields(v, func(n protowire.Number, v []byte) error {
			if n != endpointTargetRef {
				return nil
			}
			var kind, uid string
			if err := errors.Join(one(v, targetRefKind, &kind), one(v, targetRefUID, &uid)); err != nil {
				return err
			}
			if kind == string(relation.Pod) && uid != "" {
				s.targets = append(s.targets, uid)
			}
			return nil
		})
	})
}

// Reset implements message.
func (l *slimList[T, P]) Reset() { *l = slimList[T, P]{} }

// Unmarshal implements message.
func (l *slimList[T, P]) Unmarshal(b []byte) error {
	return fields(b, func(n protowire.Number, v []byte) error {
		switch n {
		case objectMetadata:
			return l.ListMeta.Unmarshal(v)
		case listItems:
			l.Items = append(l.Items, *new(T))
			return P(&l.Items[len(l.Items)-1]).Unmarshal(v)
		}
		return nil
	})
}

// DeepCopyObject implements runtime.Object.
func (s *slimSlice) DeepCopyObject() runtime.Object {
	c := *s
	s.DeepCopyInto(&c.ObjectMeta)
	c.targets = slices.Clone(s.targets)
	return &c
}

// DeepCopyObject implements runtime.Object.
func (l *slimList[T, P]) DeepCopyObject() runtime.Object {
	c := &slimList[T, P]{TypeMeta: l.TypeMeta, ListMeta: *l.DeepCopy()}
	for i := range l.Items {
		if item, ok := P(&l.Items[i]).DeepCopyObject().(P); ok {
			c.Items = append(c.Items, *item)
		}
	}
	return c
}

// next reads the first field of a protobuf message: its value if it is a
// string, bytes or a message, its encoding if it is a number or a flag, nil if
// it is of any other type, which no field that is read here has.
func next(b []byte) (number protowire.Number, v, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, nil, nil, protowire.ParseError(n)
	}
	b = b[n:]
	if kind == protowire.BytesType {
		if v, n = protowire.ConsumeBytes(b); n < 0 {
			return 0, nil, nil, protowire.ParseError(n)
		}
		return number, v, b[n:], nil
	}
	if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
		return 0, nil, nil, protowire.ParseError(n)
	}
	if kind == protowire.VarintType {
		v = b[:n]
	}
	return number, v, b[n:], nil
}

// fields calls f for every field of a protobuf message that next has a value
// of.
func fields(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		number, v, rest, err := next(b)
		if err != nil {
			return err
		}
		if v != nil {
			if err := f(number, v); err != nil {
				return err
			}
		}
		b = rest
	}
	return nil
}

// one reads a message's string field with the number, if it is there.
func one(b []byte, number protowire.Number, to *string) error {
	v, err := raw(b, number)
	if v != nil {
		*to = string(v)
	}
	return err
}

// raw returns the value of a message's field with the number, nil if it is not
// there.
func raw(b []byte, number protowire.Number) (value []byte, err error) {
	for len(b) > 0 {
		n, v, rest, err := next(b)
		if err != nil {
			return nil, err
		}
		if n == number {
			value = v
		}
		b = rest
	}
	return value, nil
}

// entry reads an entry of a map of strings.
func entry(b []byte) (key, value []byte, err error) {
	for len(b) > 0 {
		n, v, rest, err := next(b)
		if err != nil {
			return nil, nil, err
		}
		switch n {
		case entryKey:
			key = v
		case entryValue:
			value = v
		}
		b = rest
	}
	return key, value, nil
}

// seconds reads a Time, but for fractions of a second, which Kubernetes does
// not write.
func seconds(b []byte) (time.Time, error) {
	v, err := raw(b, timeSeconds)
	if v == nil || err != nil {
		return time.Time{}, err
	}
	s, n := protowire.ConsumeVarint(v)
	if n < 0 {
		return time.Time{}, protowire.ParseError(n)
	}
	return time.Unix(int64(s), 0), nil //nolint:gosec // negative numbers are encoded so
}
