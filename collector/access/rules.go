package access

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/ticket"
)

// Why a caller is refused: the values of the metrics' label reason.
const (
	codeForged         = "ticket_forged"
	codePodUnknown     = "ticket_pod_unknown"
	codePodFinished    = "ticket_pod_finished"
	codeTicketNode     = "ticket_other_node"
	codeStolen         = "ticket_other_pod"
	codeTicketPod      = "ticket_no_subscriber"
	codeNoKey          = "ticket_key_unknown"
	codeAddressUnknown = "address_unknown"
	codeAddressNode    = "address_other_node"
	codeAddressPod     = "address_no_subscriber"
	codeLoopback       = "address_loopback"
	codeDistrusted     = "address_of_node_distrusted"
	codeChanged        = "address_changed"
	codeToken          = "token_invalid"
	codeTokenDenied    = "token_denied"
	codeTokenPlaintext = "token_plaintext"
	codeTokenUnbound   = "token_unbound"
	codeTokenMissing   = "token_missing"
	codeBusy           = "token_busy"
	codeError          = "error"
)

func reasons() []string {
	return []string{
		codeForged, codePodUnknown, codePodFinished, codeTicketNode, codeStolen, codeTicketPod, codeNoKey,
		codeAddressUnknown, codeAddressNode, codeAddressPod, codeLoopback, codeDistrusted, codeChanged,
		codeToken, codeTokenDenied, codeTokenPlaintext, codeTokenUnbound, codeTokenMissing, codeBusy, codeError,
	}
}

// rule is one look at what is known.
type rule func() verdict

// verdict is what a look comes to. It counts once it has been the same for a
// time, since what is known may be a moment old.
type verdict struct {
	by      By
	refusal *Refusal // nil: yes
	after   time.Duration
}

func yes(by By, after time.Duration) verdict { return verdict{by: by, after: after} }

func no(after time.Duration, code, reason string, args ...any) verdict {
	return verdict{refusal: &Refusal{Refused, code, fmt.Sprintf(reason, args...), nil}, after: after}
}

// unknown may become known within Wait.
func (g *Guard) unknown(code, reason string, args ...any) verdict {
	return verdict{refusal: &Refusal{Unknown, code, fmt.Sprintf(reason, args...), nil}, after: g.options.Wait}
}

// same reports whether both say the same.
func (v verdict) same(o verdict) bool {
	if v.refusal == nil || o.refusal == nil {
		return v.refusal == o.refusal && v.by == o.by
	}
	return v.refusal.Kind == o.refusal.Kind && v.refusal.Code == o.refusal.Code
}

// against reports whether it is known that the caller may not.
func (v verdict) against() bool { return v.refusal != nil && v.refusal.Kind == Refused }

// undecided is what a verdict comes to that has not been so for long enough.
func (v verdict) undecided() *Refusal {
	if v.refusal == nil {
		return &Refusal{Unknown, codeAddressUnknown, "it is not known for long enough whose the caller's address is", nil}
	}
	r := *v.refusal
	r.Kind = Unknown
	return &r
}

// keyed asks the key before the rule. Another replica may know a new key
// earlier.
func (g *Guard) keyed(t ticket.Ticket, next rule) rule {
	return func() verdict {
		switch good, known := g.keys.good(t); {
		case !known:
			return g.unknown(codeNoKey, "the key that tickets are checked with is not known yet")
		case !good:
			return no(g.options.Settle, codeForged, "the ticket is not one that this cluster's collectors issued with their present key")
		}
		return next()
	}
}

// ticketRule: the pod is on that node, not finished and one that may have a
// ticket, and the caller's address is not another pod's. A pod that is not known
// may be gone, or be new.
func (g *Guard) ticketRule(caller netip.Addr, t ticket.Ticket) rule {
	return func() verdict {
		p, ok := g.roster.Pod(t.PodUID)
		switch {
		case !ok || (p.Node == "" && !p.Finished):
			return g.unknown(codePodUnknown, "the pod that the ticket was issued for is not known to be on the node")
		case p.Finished:
			return no(0, codePodFinished, "the pod that the ticket was issued for has finished")
		case p.Node != t.Node:
			return no(0, codeTicketNode, "the pod that the ticket was issued for is on another node")
		case !ticketed(&p):
			return no(g.options.Wait, codeTicketPod, "%s", noSubscriber)
		}
		return g.fromPod(caller, &p)
	}
}

// ticketed reports whether the pod may have a ticket.
func ticketed(p *roster.Pod) bool { return p.Subscribes() && !p.OptedOut }

const noSubscriber = `tickets are for pods that are Falco or annotated metawire.dev/inject: "true"`

// fromPod: the caller's address is not known to be another pod's. One that no
// pod holds may be that of a pod which has just started, unless it is a node's.
// As long as the pod's own is not known, the other may be one whose end has not
// been told yet.
func (g *Guard) fromPod(caller netip.Addr, p *roster.Pod) verdict {
	holder, _, _, held := g.roster.Holder(caller)
	own := slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return a.Unmap().WithZone("") == caller })
	switch {
	case held && holder == p.UID, own && (!held || !p.HostNetwork):
		return yes(ByTicket, 0)
	case held && len(p.Addresses) == 0:
		return g.unknown(codeAddressUnknown, "the pod's address is not known yet, and %s was another pod's", caller)
	case held:
		return no(g.options.Wait, codeStolen, "%s is the address of another pod", caller)
	}
	if _, nodes, _ := g.roster.NodeOf(caller); nodes {
		return yes(ByTicket, 0)
	}
	return yes(ByTicket, g.options.Settle)
}

// addressRule: the address is that of a pod on the node that may subscribe, or
// the node's. An address of its range that no pod holds may yet be a pod's.
func (g *Guard) addressRule(caller netip.Addr, node string) rule {
	return func() verdict {
		if caller.IsLoopback() {
			return no(0, codeLoopback, "a loopback address, such as a port-forward's, proves nothing: send a bearer token")
		}
		if _, on, subscribes, held := g.roster.Holder(caller); held {
			switch {
			case on == "":
				return g.nobodys(caller)
			case on != node:
				return no(g.options.Wait, codeAddressNode, "%s is the address of a pod on another node", caller)
			case !subscribes:
				return no(g.options.Wait, codeAddressPod, "%s is the address of a pod that is neither Falco nor annotated metawire.dev/inject: \"true\"", caller)
			}
			return yes(ByAddress, 0)
		}
		own, inRange := g.roster.OnNode(node, caller)
		of := own || inRange
		if !of {
			_, _, of = g.roster.NodeOf(caller)
		}
		switch {
		case !of:
			return g.nobodys(caller)
		case g.options.DistrustNodeAddresses:
			return no(g.options.Wait, codeDistrusted, "%s is an address that all of a node's host network shares, which is configured to prove nothing", caller)
		case own:
			return yes(ByNodeAddress, 0)
		case inRange:
			return yes(ByNodeAddress, g.options.Settle)
		}
		return no(g.options.Wait, codeAddressNode, "%s is an address of another node", caller)
	}
}

// nobodys is for an address that is neither a pod's nor a node's, as far as is
// known.
func (g *Guard) nobodys(caller netip.Addr) verdict {
	if !g.roster.RangesTell() {
		g.ranges.Do(func() {
			g.log.Info("pods have addresses of other nodes' spec.podCIDRs: this network does not give addresses by them, so that a range proves no node")
		})
	}
	return g.unknown(codeAddressUnknown, "%s is not known as the address of a pod or of a node", caller)
}
