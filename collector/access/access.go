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
// PERMISSION_DENIED, so Refused is only for what is known to belong elsewhere.
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
}

func (r *Refusal) Error() string { return r.Reason }

// Grant is the leave to read a node.
type Grant struct {
	Node string
	By   By
	// Revoked is closed when the leave no longer stands; nil if it stands as
	// long as the stream.
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
	// Wait is how long what is not known may take to become known, default 10s.
	Wait time.Duration
	// Settle is how long an address of a node's range that no pod holds is
	// looked at before it counts as the node's own, default 3s: a pod that has
	// just started may have it before the API server says so.
	Settle time.Duration
	// Recheck is the shortest time between two looks at all grants, default 1s.
	Recheck time.Duration
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
	return &Guard{
		roster: r, keys: keys, people: people, log: log, metrics: m, options: o,
		told: rate.NewLimiter(5, 50), grants: map[*grant]struct{}{},
	}
}

// Decide decides whether the caller may read what it sent as nodeName: a
// ticket, or a node's bare name. It blocks while the answer is not known, for
// Wait at most. The grant is looked at again whenever the roster changes, until
// ctx ends. The error is a *Refusal; when ctx ends first it is one of the kind
// Unknown. Every answer is counted, and refusals are logged, some of very many.
// With Audit there is no error.
func (g *Guard) Decide(ctx context.Context, c Caller, nodeName string) (Grant, error) {
	c.Address = c.Address.Unmap().WithZone("")
	node, by, check, err := g.judge(ctx, c, nodeName)
	if err != nil {
		g.refused(c, node, err)
		if !g.options.Audit {
			return Grant{}, err
		}
		by, check = ByNothing, nil
	}
	g.metrics.authorized.WithLabelValues(string(by)).Inc()
	out := Grant{Node: node, By: by}
	if check != nil {
		out.Revoked = g.keep(ctx, same(by, check))
	}
	return out, nil
}

// judge returns the node even with an error; check is nil for what changes of
// the roster have no say in.
func (g *Guard) judge(ctx context.Context, c Caller, nodeName string) (node string, by By, check rule, err error) {
	t, isTicket := ticket.Parse(nodeName)
	switch {
	case isTicket && g.keys != nil:
		check = g.ticketRule(c.Address, t)
		by, err = g.await(ctx, nil, g.keyed(t, check))
		return t.Node, by, check, err
	case isTicket: // nobody can tell whether it is good
		nodeName = t.Node
	case c.Bearer != "":
		return nodeName, ByToken, nil, g.people.authorize(ctx, c, nodeName)
	}
	settled := time.NewTimer(g.options.Settle)
	defer settled.Stop()
	until := time.Now().Add(g.options.Settle)
	by, err = g.await(ctx, settled.C, g.addressRule(c.Address, nodeName, until))
	return nodeName, by, g.addressRule(c.Address, nodeName, time.Time{}), err
}

func (g *Guard) refused(c Caller, node string, err error) {
	r := new(Refusal)
	if !errors.As(err, &r) {
		r = &Refusal{Kind: Unknown, Code: codeError, Reason: err.Error()}
	}
	g.metrics.refusals.WithLabelValues(r.Code).Inc()
	if g.told.Allow() {
		g.log.Warn("subscriber is not authorized", "node", node, "address", c.Address, "code", r.Code, "reason", r.Reason, "served", g.options.Audit)
	}
}

// rule is one look at the roster. The verdict is nil for yes; one of the kind
// Unknown may change.
type rule func() (By, *Refusal)

// await looks until the answer is known, for Wait at most: anew when the roster
// or the key has changed, and when settled fires.
func (g *Guard) await(ctx context.Context, settled <-chan time.Time, look rule) (By, error) {
	ctx, cancel := context.WithTimeout(ctx, g.options.Wait)
	defer cancel()
	for {
		roster, key := g.roster.Changed(), g.keys.changed()
		by, r := look()
		switch {
		case r == nil:
			return by, nil
		case r.Kind != Unknown:
			return "", r
		}
		select {
		case <-roster:
		case <-key:
		case <-settled:
		case <-ctx.Done():
			return "", given(ctx, r)
		}
	}
}

// given is what an unknown thing comes to when it was waited for in vain.
func given(ctx context.Context, r *Refusal) *Refusal {
	if r.Code == codePodUnknown && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Refusal{Refused, codePodGone, "the pod that the ticket was issued for is gone"}
	}
	return r
}

// same is the rule that the answer remains what it was.
func same(by By, check rule) rule {
	return func() (By, *Refusal) {
		now, r := check()
		if r == nil && now != by {
			r = &Refusal{Unknown, codeChanged, "the caller's address is no longer what it was"}
		}
		return now, r
	}
}

// grant is one that stands as long as its rule says so.
type grant struct {
	check   rule
	revoked chan struct{}
}

// keep has the rule looked at again until ctx ends.
func (g *Guard) keep(ctx context.Context, check rule) <-chan struct{} {
	k := &grant{check, make(chan struct{})}
	g.mu.Lock()
	g.grants[k] = struct{}{}
	g.mu.Unlock()
	context.AfterFunc(ctx, func() {
		g.mu.Lock()
		delete(g.grants, k)
		g.mu.Unlock()
	})
	return k.revoked
}

// Start looks at all grants again when the roster changes, at most once in
// Recheck, until ctx ends. It returns nil then.
func (g *Guard) Start(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select { // first the pause, so that a burst of changes is one look
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		changed := g.roster.Changed()
		g.recheck()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		timer.Reset(g.options.Recheck)
	}
}

// recheck revokes what no longer stands.
func (g *Guard) recheck() {
	g.mu.Lock()
	all := make([]*grant, 0, len(g.grants))
	for k := range g.grants {
		all = append(all, k)
	}
	g.mu.Unlock()
	for _, k := range all {
		if _, r := k.check(); r != nil {
			g.mu.Lock()
			if _, ok := g.grants[k]; ok {
				delete(g.grants, k)
				close(k.revoked)
				g.metrics.revoked.WithLabelValues(r.Code).Inc()
			}
			g.mu.Unlock()
		}
	}
}
