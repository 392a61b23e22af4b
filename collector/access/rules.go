package access

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/metawire/metawire/internal/ticket"
)

// Why a caller is refused: the values of the metrics' label reason.
const (
	codeForged         = "ticket_forged"
	codePodUnknown     = "ticket_pod_unknown"
	codePodGone        = "ticket_pod_gone"
	codePodFinished    = "ticket_pod_finished"
	codeTicketNode     = "ticket_other_node"
	codeStolen         = "ticket_other_pod"
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
		codeForged, codePodUnknown, codePodGone, codePodFinished, codeTicketNode, codeStolen, codeNoKey,
		codeAddressUnknown, codeAddressNode, codeAddressPod, codeLoopback, codeDistrusted, codeChanged,
		codeToken, codeTokenDenied, codeTokenPlaintext, codeTokenUnbound, codeTokenMissing, codeBusy, codeError,
	}
}

// keyed asks the key before the rule.
func (g *Guard) keyed(t ticket.Ticket, next rule) rule {
	return func() (By, *Refusal) {
		switch good, known := g.keys.good(t); {
		case !known:
			return "", &Refusal{Unknown, codeNoKey, "the key that tickets are checked with is not known yet"}
		case !good:
			return "", &Refusal{Refused, codeForged, "the ticket is not one that this cluster's collectors issued with their present key"}
		}
		return next()
	}
}

// ticketRule: the pod is on that node and not finished, and the caller's address
// is not another pod's.
func (g *Guard) ticketRule(caller netip.Addr, t ticket.Ticket) rule {
	return func() (By, *Refusal) {
		p, ok := g.roster.Pod(t.PodUID)
		switch {
		case !ok || (p.Node == "" && !p.Finished):
			return "", &Refusal{Unknown, codePodUnknown, "the pod that the ticket was issued for is not known to be on the node"}
		case p.Finished:
			return "", &Refusal{Refused, codePodFinished, "the pod that the ticket was issued for has finished"}
		case p.Node != t.Node:
			return "", &Refusal{Refused, codeTicketNode, "the pod that the ticket was issued for is on another node"}
		}
		if r := g.anothers(caller, t.PodUID); r != nil {
			return "", r
		}
		return ByTicket, nil
	}
}

// anothers refuses an address that is known to be another pod's. As long as the
// pod's own is not known, the other may be one whose end has not been told yet.
func (g *Guard) anothers(caller netip.Addr, podUID string) *Refusal {
	holder, _, _, held := g.roster.Holder(caller)
	if !held || holder == podUID {
		return nil
	}
	p, _ := g.roster.Pod(podUID)
	own := slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return a.Unmap().WithZone("") == caller })
	switch {
	case own && !p.HostNetwork:
		return nil
	case len(p.Addresses) == 0:
		return &Refusal{Unknown, codeAddressUnknown, fmt.Sprintf("the pod's address is not known yet, and %s was another pod's", caller)}
	}
	return &Refusal{Refused, codeStolen, fmt.Sprintf("%s is the address of another pod", caller)}
}

// addressRule: the address is that of a pod on the node that may subscribe, or
// the node's. Until settled, an address of a range that no pod holds may yet be
// a pod's.
func (g *Guard) addressRule(caller netip.Addr, node string, settled time.Time) rule {
	unknown := &Refusal{Unknown, codeAddressUnknown, fmt.Sprintf("%s is not known as the address of a pod or of a node", caller)}
	return func() (By, *Refusal) {
		if caller.IsLoopback() {
			return "", &Refusal{Refused, codeLoopback, "a loopback address, such as a port-forward's, proves nothing: send a bearer token"}
		}
		if _, on, subscribes, held := g.roster.Holder(caller); held {
			switch {
			case on == "":
				return "", unknown
			case on != node:
				return "", &Refusal{Refused, codeAddressNode, fmt.Sprintf("%s is the address of a pod on another node", caller)}
			case !subscribes:
				return "", &Refusal{Refused, codeAddressPod, fmt.Sprintf("%s is the address of a pod that is neither Falco nor annotated metawire.dev/inject: \"true\"", caller)}
			}
			return ByAddress, nil
		}
		own, inRange := g.roster.OnNode(node, caller)
		of, known := g.roster.NodeOf(caller)
		if !own && !inRange && !known {
			return "", unknown
		}
		if n, _ := g.roster.Node(of); !own && !slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return a.Unmap().WithZone("") == caller }) && time.Now().Before(settled) {
			return "", unknown
		}
		switch {
		case g.options.DistrustNodeAddresses:
			return "", &Refusal{Refused, codeDistrusted, fmt.Sprintf("%s is an address that all of a node's host network shares, which is configured to prove nothing", caller)}
		case !own && !inRange:
			return "", &Refusal{Refused, codeAddressNode, fmt.Sprintf("%s is an address of another node", caller)}
		}
		return ByNodeAddress, nil
	}
}
