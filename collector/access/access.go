// Package access decides who may read a node's stream, and gives wired pods
// their tickets. It serves no events and keeps no copy of the cluster: what it
// knows of pods and nodes is the roster's.
package access

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/ticket"
)

// By is what a subscriber was authorized by: a label of metrics.
type By string

// The ways to be authorized.
const (
	ByTicket      By = "ticket"
	ByAddress     By = "address"     // a pod's own
	ByNodeAddress By = "nodeAddress" // one that all of the node's host network shares
	ByToken       By = "token"
	ByNothing     By = "nothing" // refused, and served because it is only audited
)

// Kind is what becomes of a caller that is not authorized.
type Kind uint8

// The kinds of refusals. Falco's plugin waits longer and longer after
// PERMISSION_DENIED, so Refused is only for what is known to belong elsewhere,
// and was so for long enough not to be an old state of the cluster.
const (
	Refused         Kind = iota // known to be somebody else: PERMISSION_DENIED
	Unknown                     // not known within Wait: ABORTED, it may come back at once
	Unauthenticated             // its bearer token is not good: UNAUTHENTICATED
)

// Refusal is why a caller is not authorized.
type Refusal struct {
	Kind   Kind
	Code   string // of a small closed set: a label of metrics
	Reason string // one sentence for people
	Cause  error  // for our log alone, nil if there is none
}

func (r *Refusal) Error() string { return r.Reason }

// Grant is the leave to read a node.
type Grant struct {
	Node string
	By   By
	// Pod is the UID of the pod that has the leave, empty if that is not known.
	Pod string
	// Revoked is closed when the leave no longer stands; nil if it stands as
	// long as the stream. With Audit it never is.
	Revoked <-chan struct{}
}

// Caller is who asks.
type Caller struct {
	Address netip.Addr // the zero value if it is not known
	Bearer  string     // token, empty if it sent none
	// Private says that nobody between can read along: TLS, or a connection
	// that does not leave the machine.
	Private bool
}

// Options configures a Guard. The zero values of the durations are right
// outside of tests.
type Options struct {
	// Audit lets those through who are not authorized, after all else was done.
	Audit bool
	// DistrustNodeAddresses makes addresses of nodes and of ranges of pod
	// addresses prove nothing.
	DistrustNodeAddresses bool
	// Wait is how long what is not known may take to become known, and what is
	// known to change before a caller is refused for good, default 10s: addresses
	// are used again, and the API tells of that late.
	Wait time.Duration
	// Settle is how long an address that no pod holds is looked at before it
	// counts as nobody's, a bad ticket before it counts as forged, and what has
	// come to stand against a caller while it waited before that counts, default
	// 3s: a pod that has just started has its address, and a key that has just
	// changed is used, before the API server says so.
	Settle time.Duration
	// Recheck is the shortest time between two looks at all grants, default 1s.
	Recheck time.Duration
	// Renew is how long a bearer token counts before it is reviewed again,
	// default 5m, spread by a quarter.
	Renew time.Duration
}

// Guard decides. Any goroutine may call its methods.
type Guard struct {
	roster  *roster.Roster
	keys    *Keys
	people  *People
	log     *slog.Logger
	metrics *Metrics
	options Options
	told    *rate.Limiter // log lines of refusals
	last    refusals
	ranges  sync.Once // tells that ranges of pod addresses prove nothing

	mu     sync.Mutex
	grants map[*grant]struct{}
}

// New returns a guard. Without keys no ticket is good, without people no token.
func New(r *roster.Roster, keys *Keys, people *People, log *slog.Logger, m *Metrics, o Options) *Guard {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Wait, 10*time.Second)
	def(&o.Settle, 3*time.Second)
	def(&o.Recheck, time.Second)
	def(&o.Renew, 5*time.Minute)
	return &Guard{
		roster: r, keys: keys, people: people, log: log, metrics: m, options: o,
		told: rate.NewLimiter(5, 50), grants: map[*grant]struct{}{},
	}
}

// Decide decides whether the caller may read what it sent as nodeName: a
// ticket, or a node's bare name. It blocks while the answer is not known, for
// Wait at most. The grant is looked at again whenever the roster or the key
// changes, that of a token every Renew, until ctx ends. The error is a *Refusal;
// when ctx ends first it is one of the kind Unknown. Every answer that is given
// is counted, and refusals are logged, some of very many. With Audit there is
// no error before ctx ends.
func (g *Guard) Decide(ctx context.Context, c Caller, nodeName string) (Grant, error) {
	c.Address = c.Address.Unmap().WithZone("")
	node, by, k, err := g.judge(ctx, c, nodeName)
	who := asker{address: c.Address, node: node, pod: g.podOf(c.Address, nodeName)}
	if err != nil {
		if ctx.Err() != nil {
			return Grant{}, err // the caller has gone: nobody was refused
		}
		g.refused(who, err)
		if !g.options.Audit {
			return Grant{}, err
		}
		by, k = ByNothing, nil
	}
	g.metrics.authorized.WithLabelValues(string(by)).Inc()
	out := Grant{Node: node, By: by}
	if by == ByTicket || by == ByAddress {
		out.Pod = who.pod
	}
	if k != nil {
		k.asker = who
		out.Revoked = g.keep(ctx, k)
	}
	return out, nil
}

// judge returns the node even with an error, and what is to be looked at again.
func (g *Guard) judge(ctx context.Context, c Caller, nodeName string) (node string, by By, k *grant, err error) {
	t, isTicket := ticket.Parse(nodeName)
	var check rule
	switch {
	case isTicket && g.keys != nil:
		nodeName, check = t.Node, g.keyed(t, g.ticketRule(c.Address, t))
	case isTicket: // nobody can tell whether it is good
		nodeName, check = t.Node, g.addressRule(c.Address, t.Node)
	case c.Bearer != "":
		return nodeName, ByToken, g.renewed(c, nodeName), g.people.authorize(ctx, c, nodeName)
	default:
		check = g.addressRule(c.Address, nodeName)
	}
	by, err = g.await(ctx, check)
	return nodeName, by, &grant{by: by, check: check}, err
}

func (g *Guard) refused(who asker, err error) {
	r := refusalOf(err)
	g.metrics.refusals.WithLabelValues(r.Code).Inc()
	g.last.add(OfSubscription, who, r, g.options.Audit)
	if g.told.Allow() {
		g.log.Warn("subscriber is not authorized", "node", who.node, "address", who.address, "code", r.Code, "reason", r.Reason, "cause", r.Cause, "served", g.options.Audit)
	}
}

// podOf returns the UID of the pod that asks: the one that holds the address, or
// that of a good ticket; empty if it is not known. So a stolen ticket's refusal is
// the thief's.
func (g *Guard) podOf(a netip.Addr, nodeName string) string {
	uid, _, _, held := g.roster.Holder(a)
	if t, ok := ticket.Parse(nodeName); ok && !held && g.keys != nil {
		if good, _ := g.keys.good(t); good {
			return t.PodUID
		}
	}
	return uid
}

// refusalOf makes a refusal of any error.
func refusalOf(err error) *Refusal {
	if r := new(Refusal); errors.As(err, &r) {
		return r
	}
	return failed(err)
}

// failed is the refusal for what could not be found out. Why is nothing for a
// caller that nobody knows.
func failed(err error) *Refusal {
	return &Refusal{Unknown, codeError, "it could not be found out whether this is allowed: try again", err}
}

// await looks until the answer counts, for Wait at most: anew when the roster or
// the key has changed. What has not been so for long enough then is unknown.
func (g *Guard) await(ctx context.Context, look rule) (By, error) {
	began := time.Now()
	end := began.Add(g.options.Wait)
	now, since, last := began, began, verdict{}
	for first := true; ; first = false {
		roster, key := g.roster.Changed(), g.keys.changed()
		v := look()
		if !first && !v.same(last) {
			since = now
		}
		last = v
		wait, left := v.after-now.Sub(since), end.Sub(now)
		switch {
		case wait <= 0 && v.refusal == nil:
			return v.by, nil
		case wait <= 0:
			return "", v.refusal
		case left <= 0 && v.against() && now.Sub(since) >= g.options.Settle:
			return "", v.refusal // it is news, not an old state
		case left <= 0:
			return "", v.undecided()
		}
		if !g.pause(ctx, roster, key, min(wait, left)) {
			return "", v.undecided()
		}
		if now = time.Now(); now.After(end) {
			now = end // a timer that fires late makes nothing stand longer
		}
	}
}

// pause waits for a change, for d at most; false means that ctx has ended.
func (g *Guard) pause(ctx context.Context, roster, key <-chan struct{}, d time.Duration) bool {
	g.metrics.undecided.Inc()
	defer g.metrics.undecided.Dec()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-roster:
	case <-key:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}
