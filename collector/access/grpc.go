package access

import (
	"context"
	"errors"
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
func (g *Guard) Authorize(ctx context.Context, nodeName string) (node string, revoked <-chan struct{}, err error) {
	grant, err := g.Decide(ctx, caller(ctx), nodeName)
	if err != nil {
		return "", nil, statusOf(err)
	}
	return grant.Node, grant.Revoked, nil
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
	r := new(Refusal)
	if !errors.As(err, &r) {
		return status.Error(codes.Aborted, err.Error())
	}
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

// Issue implements ticket.TicketsServer. It blocks while the key, or whose the
// caller's address is, is not known, for the guard's Wait at most.
func (s *Tickets) Issue(ctx context.Context, _ *ticket.IssueRequest) (*ticket.IssueResponse, error) {
	c := caller(ctx)
	t, err := s.issue(ctx, c)
	if err != nil {
		code := codeError
		if r := new(Refusal); errors.As(err, &r) {
			code = r.Code
		}
		s.guard.metrics.denied.WithLabelValues(code).Inc()
		if s.guard.told.Allow() {
			s.guard.log.Warn("ticket refused", "address", c.Address, "code", code, "reason", err)
		}
		return nil, statusOf(err)
	}
	s.guard.metrics.issued.Inc()
	s.guard.log.Debug("ticket issued", "node", t.Node, "pod", t.PodUID)
	return &ticket.IssueResponse{Ticket: t.String()}, nil
}

func (s *Tickets) issue(ctx context.Context, c Caller) (t ticket.Ticket, err error) {
	who, err := s.reviews.identify(ctx, c)
	if err != nil {
		return t, err
	}
	pod, node := who.one(extraPodUID), who.one(extraNode)
	if pod == "" || who.one(extraPodName) == "" {
		return t, &Refusal{Refused, codeTokenUnbound, "the token is not bound to a pod: only a projected token of a pod gets a ticket"}
	}
	_, err = s.guard.await(ctx, nil, func() (By, *Refusal) {
		if r := s.guard.anothers(c.Address, pod); r != nil {
			return "", r
		}
		on := node
		if on == "" { // API servers before 1.30 do not say
			p, _ := s.guard.roster.Pod(pod)
			if on = p.Node; on == "" {
				return "", &Refusal{Unknown, codePodUnknown, "the node of the token's pod is not known"}
			}
		}
		var known bool
		if t, known = s.guard.keys.make(on, pod); !known {
			return "", &Refusal{Unknown, codeNoKey, "the key of tickets is not known yet"}
		}
		return ByTicket, nil
	})
	return t, err
}
