// Package subscription is the gRPC service by which a collector tells who
// subscribes at it and who was refused: the collector serves it, the command line
// calls it. It holds the messages, and no rule of who may read them.
package subscription

//go:generate protoc --proto_path=../.. --go_out=../.. --go_opt=module=github.com/metawire/metawire --go-grpc_out=../.. --go-grpc_opt=module=github.com/metawire/metawire internal/subscription/subscription.proto
