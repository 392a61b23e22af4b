package access

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/internal/ticket"
)

// Authorize is Decide for a gRPC request: the caller is read from ctx, and the
// error is a status.
func (g *Guard) Authorize(ctx context.Context, nodeName string) (Grant, error) {
	grant, err := g.Decide(ctx, caller(ctx), nodeName)
	if err != nil {
		return Grant{}, statusOf(err)
	}
	return grant, nil
}

// AuthorizeAll decides for a gRPC request whether the caller may be told who
// subscribes at every node: by a bearer token and nothing else, and with Audit
// too, since what is audited is who reads the stream of one node. The error is a
// status.
func (g *Guard) AuthorizeAll(ctx context.Context) error {
	c := caller(ctx)
	err := g.people.authorize(ctx, c, everyNode)
	if err == nil {
		return nil
	}
	if r := refusalOf(err); ctx.Err() == nil && g.told.Allow() {
		g.log.Warn("a list of subscribers is refused", "address", c.Address, "code", r.Code, "reason", r.Reason, "cause", r.Cause)
	}
	return statusOf(err)
}

// caller reads who asks from a request's context.
func caller(ctx context.Context) Caller {
	var c Caller
	if p, ok := peer.FromContext(ctx); ok {
		c.Address = address(p.Addr)
		_, secured := p.AuthInfo.(credentials.TLSInfo)
		c.Private = secured || address(p.LocalAddr).IsLoopback()
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") {
			c.Bearer = strings.TrimSpace(token)
		}
	}
	return c
}

func address(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// statusOf words a refusal for gRPC.
func statusOf(err error) error {
	r := refusalOf(err)
	code := codes.Aborted
	switch r.Kind {
	case Refused:
		code = codes.PermissionDenied
	case Unauthenticated:
		code = codes.Unauthenticated
	case Unknown:
	}
	return status.Error(code, r.Reason)
}

// Tickets gives pods their tickets. Any goroutine may call its methods.
type Tickets struct {
	ticket.UnimplementedTicketsServer

	guard   *Guard
	reviews *Reviews
}

// NewTickets returns the service; the guard must have keys.
func NewTickets(g *Guard, r *Reviews) *Tickets { return &Tickets{guard: g, reviews: r} }

// Issue implements ticket.TicketsServer. It blocks while the token is reviewed,
// and while the key, or whose the caller's address is, is not known, for the
// guard's Wait at most.
func (s *Tickets) Issue(ctx context.Context, _ *ticket.IssueRequest) (*ticket.IssueResponse, error) {
	c := caller(ctx)
	t, err := s.issue(ctx, c)
	if err != nil && ctx.Err() != nil {
		return nil, statusOf(err) // the caller has gone: nobody was refused
	}
	if err != nil {
		r := refusalOf(err)
		s.guard.metrics.denied.WithLabelValues(r.Code).Inc()
		who := asker{address: c.Address, pod: s.guard.podOf(c.Address, "")}
		if who.pod == "" {
			who.pod = t.PodUID
		}
		s.guard.last.add(OfTicket, who, r, false)
		if s.guard.told.Allow() {
			s.guard.log.Warn("ticket refused", "address", c.Address, "code", r.Code, "reason", r.Reason, "cause", r.Cause)
		}
		return nil, statusOf(err)
	}
	s.guard.metrics.issued.Inc()
	s.guard.log.Debug("ticket issued", "node", t.Node, "pod", t.PodUID)
	return &ticket.IssueResponse{Ticket: t.String()}, nil
}

// issue returns the ticket; with an error one that holds no more than the UID of
// the token's pod, if that was found.
func (s *Tickets) issue(ctx context.Context, c Caller) (t ticket.Ticket, err error) {
	// Before the API server is asked; the address may have been that pod's until
	// a moment ago.
	if _, _, subscribes, held := s.guard.roster.Holder(c.Address); held && !subscribes {
		return t, &Refusal{Unknown, codeTicketPod, noSubscriber, nil}
	}
	who, err := s.reviews.identify(ctx, c)
	if err != nil {
		return t, err
	}
	uid, node := who.one(extraPodUID), who.one(extraNode)
	if uid == "" || who.one(extraPodName) == "" {
		return t, &Refusal{Refused, codeTokenUnbound, "the token is not bound to a pod: only a projected token of a pod gets a ticket", nil}
	}
	t.PodUID = uid
	_, err = s.guard.await(ctx, func() verdict {
		p, known := s.guard.roster.Pod(uid)
		p.UID = uid
		if known && !ticketed(&p) {
			return no(s.guard.options.Wait, codeTicketPod, "%s", noSubscriber)
		}
		v := s.guard.fromPod(c.Address, &p)
		if v.refusal != nil {
			return v
		}
		on := node
		if on == "" { // API servers before 1.30 do not say
			if on = p.Node; on == "" {
				return s.guard.unknown(codePodUnknown, "the node of the token's pod is not known")
			}
		}
		var have bool
		if t, have = s.guard.keys.make(on, uid); !have {
			return s.guard.unknown(codeNoKey, "the key of tickets is not known yet")
		}
		return v
	})
	return t, err
}
