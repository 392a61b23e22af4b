package stream

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/metawire/metawire/collector/metadata"
)

// frame is an event on its way to a subscriber: bytes made once for all, and
// the reason that may differ.
type frame struct {
	reason string
	event  []byte
}

// codec hands a frame's bytes to gRPC without copying; everything else is
// protobuf as usual.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	if f.reason == metadata.Update {
		head, rest := metadata.AsUpdate(f.event)
		return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(rest)}, nil
	}
	return mem.BufferSlice{mem.SliceBuffer(f.event)}, nil
}
