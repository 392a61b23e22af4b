// Package ticket is the gRPC service that gives a wired Falco pod its ticket:
// the collector serves it, the pod's init container calls it. It holds the
// format of tickets, and no key.
package ticket

import "strings"

//go:generate protoc --proto_path=../.. --go_out=../.. --go_opt=module=github.com/metawire/metawire --go-grpc_out=../.. --go-grpc_opt=module=github.com/metawire/metawire internal/ticket/ticket.proto

// Ticket is what a subscriber sends as nodeName in place of a bare name.
type Ticket struct{ Node, PodUID, MAC string }

// Parse reads what a subscriber sent as nodeName. It returns false for a bare
// node name, which has no slash.
func Parse(nodeName string) (Ticket, bool) {
	node, rest, ok := strings.Cut(nodeName, "/")
	if !ok {
		return Ticket{}, false
	}
	uid, mac, _ := strings.Cut(rest, "/")
	return Ticket{Node: node, PodUID: uid, MAC: mac}, true
}

// String is the ticket as it is sent; a secret.
func (t Ticket) String() string { return t.Node + "/" + t.PodUID + "/" + t.MAC }
