package access

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// grant is one that stands as long as its rule says so, or its token is good.
type grant struct {
	asker   asker
	by      By
	check   rule                        // nil for a token
	review  func(context.Context) error // of a token
	due     time.Time                   // when it is reviewed next; only renew touches it after keep
	revoked chan struct{}
}

// lost returns why the grant no longer stands, nil if it does.
func (k *grant) lost() *Refusal {
	v := k.check()
	if v.refusal == nil && v.by != k.by {
		return &Refusal{Unknown, codeChanged, "the caller's address is no longer what it was", nil}
	}
	return v.refusal
}

// renewed is the grant of a token.
func (g *Guard) renewed(c Caller, node string) *grant {
	return &grant{
		by: ByToken, due: time.Now().Add(g.spread()),
		review: func(ctx context.Context) error { return g.people.review(ctx, c, node) },
	}
}

// spread is Renew, give or take a quarter.
func (g *Guard) spread() time.Duration {
	r := g.options.Renew
	return r - r/4 + rand.N(r/2+1) //nolint:gosec // spreads load, no secret
}

// keep has the grant looked at again until ctx ends, and once at once: what it
// stands on may have changed since it was given.
func (g *Guard) keep(ctx context.Context, k *grant) <-chan struct{} {
	k.revoked = make(chan struct{})
	g.mu.Lock()
	g.grants[k] = struct{}{}
	g.mu.Unlock()
	context.AfterFunc(ctx, func() {
		g.mu.Lock()
		delete(g.grants, k)
		g.mu.Unlock()
	})
	if k.check != nil {
		if r := k.lost(); r != nil {
			g.revoke(k, r)
		}
	}
	return k.revoked
}

// revoke ends a grant, or counts that it would have.
func (g *Guard) revoke(k *grant, r *Refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.grants[k]; !ok {
		return
	}
	delete(g.grants, k)
	g.metrics.revoked.WithLabelValues(r.Code).Inc()
	g.last.add(OfRevocation, k.asker, r, g.options.Audit)
	if !g.options.Audit {
		close(k.revoked)
	}
}

// Start looks at all grants again when the roster or the key changes, at most
// once in Recheck, and reviews tokens again, until ctx ends. It returns nil then.
func (g *Guard) Start(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { g.renew(ctx) })
	defer all.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select { // first the pause, so that a burst of changes is one look
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		roster, key := g.roster.Changed(), g.keys.changed()
		for _, k := range g.standing(func(k *grant) bool { return k.check != nil }) {
			if r := k.lost(); r != nil {
				g.revoke(k, r)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-roster:
		case <-key:
		}
		timer.Reset(g.options.Recheck)
	}
}

// standing returns the grants that are wanted.
func (g *Guard) standing(wanted func(*grant) bool) (all []*grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k := range g.grants {
		if wanted(k) {
			all = append(all, k)
		}
	}
	return all
}

// renewsAtOnce leaves most of the reviews to those who come.
const renewsAtOnce = 4

// renew reviews the tokens of open streams again when they are due. What cannot
// be found out changes nothing and is asked again sooner.
func (g *Guard) renew(ctx context.Context) {
	tick := time.NewTicker(max(g.options.Renew/20, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		var some errgroup.Group
		some.SetLimit(renewsAtOnce)
		for _, k := range g.standing(func(k *grant) bool { return k.review != nil && now.After(k.due) }) {
			some.Go(func() error {
				k.due = time.Now().Add(g.spread())
				err := k.review(ctx)
				if err == nil {
					return nil
				}
				if r := refusalOf(err); r.Kind != Unknown {
					g.revoke(k, r)
				} else {
					k.due = time.Now().Add(g.options.Renew / 10)
				}
				return nil
			})
		}
		_ = some.Wait()
	}
}
