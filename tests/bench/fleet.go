package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/metawire/metawire/collector/metadata"
)

// clientWindow is the flow control window of a subscriber that reads: fixed,
// because gRPC's estimator would send pings of its own.
const clientWindow = 1 << 20

// fleet is subscribers, each with a connection of its own like Falco's.
type fleet struct {
	connections []*grpc.ClientConn
	failed      chan error // the first stream that ended by itself
	failures    atomic.Int64
	receivers   sync.WaitGroup
	cancel      context.CancelFunc
}

// dialFleet opens n connections and blocks until all stand.
func dialFleet(ctx context.Context, address string, n int, window int32) (*fleet, error) {
	f := &fleet{failed: make(chan error, 1), cancel: func() {}}
	for range n {
		c, err := grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})),
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
			grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
		if err != nil {
			f.close()
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
		f.connections = append(f.connections, c)
		c.Connect()
	}
	for _, c := range f.connections {
		for s := c.GetState(); s != connectivity.Ready; s = c.GetState() {
			if !c.WaitForStateChange(ctx, s) {
				f.close()
				return nil, fmt.Errorf("dial %s: %w: state %s", address, context.Cause(ctx), s)
			}
		}
	}
	return f, nil
}

// watch subscribes connection i to nodes[i], all at once, and returns. onEvent
// is called in order for one i and at the same time for several; the frame is
// valid until it returns, and the stream is not read meanwhile.
func (f *fleet) watch(ctx context.Context, nodes []string, onEvent func(i int, event []byte)) {
	ctx, f.cancel = context.WithCancel(ctx)
	began := time.Now()
	for i, c := range f.connections {
		f.receivers.Go(func() {
			err := receive(ctx, c, nodes[i], func(event []byte) { onEvent(i, event) })
			if ctx.Err() == nil {
				f.failures.Add(1)
				select {
				case f.failed <- fmt.Errorf("stream of %s after %s: %w", nodes[i], time.Since(began).Round(time.Millisecond), err):
				default:
				}
			}
		})
	}
}

// close ends all streams and connections and waits until onEvent is called no
// more.
func (f *fleet) close() {
	f.cancel()
	for _, c := range f.connections {
		_ = c.Close()
	}
	f.receivers.Wait()
}

// wait blocks until done is closed, and fails when a stream or ctx ends first.
func (f *fleet) wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case err := <-f.failed:
		return fmt.Errorf("%d of %d streams ended, the first: %w", f.failures.Load(), len(f.connections), err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// receive reads one stream until it ends.
func receive(ctx context.Context, c *grpc.ClientConn, node string, onEvent func([]byte)) error {
	stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, metadata.Metadata_Watch_FullMethodName)
	if err != nil {
		return err
	}
	selector, err := proto.Marshal(&metadata.Selector{NodeName: node, ResourceKinds: selectedKinds()})
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(&frame{selector}), stream.CloseSend()); err != nil {
		return err
	}
	var f frame
	for {
		if err := stream.RecvMsg(&f); err != nil {
			return err
		}
		onEvent(f.bytes)
	}
}

// selectedKinds is what Falco's plugin asks for.
func selectedKinds() map[string]string {
	kinds := map[string]string{}
	for _, k := range []string{"Pod", "Namespace", "Deployment", "Service", "ReplicaSet", "ReplicaController"} {
		kinds[k] = "true"
	}
	return kinds
}
