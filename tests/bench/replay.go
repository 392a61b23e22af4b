package main

import (
	"bufio"
	"context"
	"encoding/gob"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metawire/metawire/collector/metadata"
)

// recording is what each node's subscriber got at first, message by message.
type recording map[string][][]byte

func (r recording) write(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	w := bufio.NewWriter(f)
	if err := gob.NewEncoder(w).Encode(r); err != nil {
		_ = f.Close()
		return fmt.Errorf("write the recording: %w", err)
	}
	if err := w.Flush(); err != nil {
		_ = f.Close()
		return fmt.Errorf("write the recording: %w", err)
	}
	return f.Close()
}

// serveRecording is the hidden command "replay": the limit of what a first
// sync can be. It sends bytes made beforehand and does nothing else, with the
// collector's own server options, until ctx ends. It writes its address to out.
func serveRecording(ctx context.Context, out io.Writer, args []string) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	file := flags.String("file", "", "the recording")
	if err := flags.Parse(args); err != nil {
		return err
	}
	f, err := os.Open(*file)
	if err != nil {
		return err
	}
	defer f.Close()
	var r recording
	if err := gob.NewDecoder(bufio.NewReader(f)).Decode(&r); err != nil {
		return fmt.Errorf("read the recording: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(replayOptions()...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: metadata.Metadata_ServiceDesc.ServiceName, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "Watch", ServerStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error { return r.send(s) },
		}},
	}, nil)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	fmt.Fprintln(out, l.Addr())
	return server.Serve(l)
}

// replayOptions are the collector's but for its codec and TLS, so that the two
// differ in what they do before a message is sent, not in how it is.
func replayOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.ReadBufferSize(1 << 10),
	}
}

// send answers one Watch and leaves it open.
func (r recording) send(s grpc.ServerStream) error {
	var f frame
	if err := s.RecvMsg(&f); err != nil {
		return err
	}
	var selector metadata.Selector
	if err := proto.Unmarshal(f.bytes, &selector); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for _, m := range r[selector.GetNodeName()] {
		if err := s.SendMsg(&frame{m}); err != nil {
			return err
		}
	}
	<-s.Context().Done()
	return s.Context().Err()
}
