package collector

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"time"

	"github.com/metawire/metawire/collector/access"
	"github.com/metawire/metawire/collector/report"
	"github.com/metawire/metawire/collector/stream"
	"github.com/metawire/metawire/internal/subscription"
)

// maxTold bounds a list of subscribers: some 6 MB of them.
const maxTold = 20_000

// subscriptions tells who subscribes, and who was refused. It holds nothing of
// its own, and so costs nothing while nobody asks.
type subscriptions struct {
	subscription.UnimplementedSubscriptionsServer

	collector *Collector
}

// List implements subscription.SubscriptionsServer. It blocks while the caller's
// token is reviewed.
func (s *subscriptions) List(ctx context.Context, r *subscription.ListRequest) (*subscription.ListResponse, error) {
	c := s.collector
	if err := c.guard.AuthorizeAll(ctx); err != nil {
		return nil, err
	}
	streams, left, unserved := c.stream.Subscribers(r.GetNode(), maxTold)
	out := &subscription.ListResponse{
		Authorization: c.cfg.Stream.Authorization, LeftOut: int64(left),
		Unnamed: int64(unserved.Unnamed), Undecided: int64(unserved.Undecided),
	}
	for _, o := range streams {
		out.Subscribers = append(out.Subscribers, &subscription.Subscriber{
			Node: o.Node, Pod: c.podOf(c.whose(&o)), Address: text(o.Address), By: cmp.Or(o.By, string(access.ByNothing)),
			Since: rfc3339(o.Since), EventsSent: o.Sent, Pending: int64(o.Pending), Plaintext: o.Plaintext,
		})
	}
	for _, f := range c.guard.Refusals(r.GetNode()) {
		out.Refusals = append(out.Refusals, &subscription.Refusal{
			Of: f.Of, Node: f.Node, Pod: c.podOf(f.Pod), Address: text(f.Address), Code: f.Code, Reason: f.Reason,
			Last: rfc3339(f.Last), First: rfc3339(f.First), Times: f.Times, Served: f.Served,
		})
	}
	return out, nil
}

// whose returns the UID of the pod that has the stream, empty if it is not known.
func (c *Collector) whose(o *stream.Subscriber) string {
	if o.Pod != "" {
		return o.Pod
	}
	uid, _, _, _ := c.roster.Holder(o.Address) // nobody asked, or the pod was not known yet
	return uid
}

// falcos returns the streams that may be a Falco's: not those of a token, which
// are a person's or a program's.
func (c *Collector) falcos() (all []report.Stream) {
	streams, _, _ := c.stream.Subscribers("", math.MaxInt)
	for _, o := range streams {
		if by := access.By(o.By); by != access.ByToken {
			all = append(all, report.Stream{Node: o.Node, Pod: c.whose(&o), NoTicket: by == access.ByAddress || by == access.ByNodeAddress})
		}
	}
	return all
}

// podOf names a pod as far as it is known, nil for no UID.
func (c *Collector) podOf(uid string) *subscription.Pod {
	if uid == "" {
		return nil
	}
	p, _ := c.roster.Pod(uid)
	return &subscription.Pod{Uid: uid, Namespace: p.Namespace, Name: p.Name}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
