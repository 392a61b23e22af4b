package stream

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/metawire/metawire/collector/metadata"
)

// frame is an event on its way to a subscriber: bytes made once for all, and
// the reason that differs.
type frame struct {
	reason string
	body   []byte
}

// codec hands a frame's bytes to gRPC without copying; everything else is
// protobuf as usual.
type codec struct {
	encoding.CodecV2
	reasons map[string]mem.Buffer
}

func newCodec() codec {
	c := codec{CodecV2: encoding.GetCodecV2(proto.Name), reasons: map[string]mem.Buffer{}}
	for _, r := range []string{metadata.Create, metadata.Update, metadata.Delete} {
		c.reasons[r] = mem.SliceBuffer(metadata.ReasonPrefix(r))
	}
	return c
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{c.reasons[f.reason], mem.SliceBuffer(f.body)}, nil
	}
	return c.CodecV2.Marshal(v)
}
