package source

import (
	"net/netip"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/metawire/metawire/collector/roster"
)

// Field numbers of a Node's messages, as in slim.go.
const (
	nodeSpec       protowire.Number = 2
	nodeStatus     protowire.Number = 3
	nodePodCIDR    protowire.Number = 1
	nodePodCIDRs   protowire.Number = 7
	nodeAddresses  protowire.Number = 5
	addressType    protowire.Number = 1
	addressAddress protowire.Number = 2
)

// slimNode is a Node.
type slimNode struct {
	slimMeta
	addresses []netip.Addr
	cidrs     []netip.Prefix
}

// Reset implements message.
func (s *slimNode) Reset() { *s = slimNode{} }

// Unmarshal implements message.
func (s *slimNode) Unmarshal(b []byte) error {
	return s.decode(b, func(n protowire.Number, v []byte) error {
		switch n {
		case nodeSpec:
			return fields(v, s.spec)
		case nodeStatus:
			return fields(v, s.status)
		}
		return nil
	})
}

// spec reads one field of the spec. The single range is one of all ranges, if
// there are any.
func (s *slimNode) spec(n protowire.Number, v []byte) error {
	if n == nodePodCIDR || n == nodePodCIDRs {
		if p, err := netip.ParsePrefix(string(v)); err == nil && !slices.Contains(s.cidrs, p.Masked()) {
			s.cidrs = append(s.cidrs, p.Masked())
		}
	}
	return nil
}

// status reads one field of the status.
func (s *slimNode) status(n protowire.Number, v []byte) error {
	if n != nodeAddresses {
		return nil
	}
	kind, err := raw(v, addressType)
	if err != nil {
		return err
	}
	if string(kind) != string(corev1.NodeInternalIP) && string(kind) != string(corev1.NodeExternalIP) {
		return nil
	}
	text, err := raw(v, addressAddress)
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(string(text)); err == nil {
		s.addresses = append(s.addresses, a)
	}
	return nil
}

// node returns the roster's node.
func (s *slimNode) node() *roster.Node {
	return &roster.Node{Name: s.Name, UID: string(s.UID), Addresses: s.addresses, CIDRs: s.cidrs}
}

// DeepCopyObject implements runtime.Object.
func (s *slimNode) DeepCopyObject() runtime.Object {
	c := *s
	s.DeepCopyInto(&c.ObjectMeta)
	c.addresses, c.cidrs = slices.Clone(s.addresses), slices.Clone(s.cidrs)
	return &c
}
