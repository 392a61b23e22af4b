package main

import (
	"fmt"
	"slices"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// frame is a message as it is on the wire.
type frame struct{ bytes []byte }

// rawCodec passes frames through, so that neither the subscribers nor the
// replay pay for protobuf. It goes by protobuf's name: the wire format is that.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

// Marshal implements encoding.CodecV2 without a copy.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("marshal %T: want *frame", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(f.bytes)}, nil
}

// Unmarshal implements encoding.CodecV2; it uses the frame's memory again.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("unmarshal into %T: want *frame", v)
	}
	f.bytes = slices.Grow(f.bytes[:0], data.Len())[:data.Len()]
	data.CopyTo(f.bytes)
	return nil
}

// Name implements encoding.CodecV2.
func (rawCodec) Name() string { return "proto" }
