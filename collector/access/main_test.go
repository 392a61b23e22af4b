package access

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/metawire/metawire/collector/roster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// world is a guard and what it knows.
type world struct {
	*Guard
	roster   *roster.Roster
	registry *prometheus.Registry
	reviewer *reviewer
}

// reviewer knows tokens and what their holders may read.
type reviewer struct {
	tokens  map[string]Identity
	may     map[string]string // user to node
	failure error
	asked   int
	mu      sync.Mutex
}

func (r *reviewer) fails(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failure = err
}

func (r *reviewer) forbid(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.may, user)
}

func (r *reviewer) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *reviewer) Review(_ context.Context, token string) (Identity, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	who, ok := r.tokens[token]
	return who, ok, r.failure
}

func (r *reviewer) MayRead(_ context.Context, who Identity, node string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	may, ok := r.may[who.User]
	return ok && may == node, r.failure
}

// pods and nodes of every test: Falco and another pod on node-1, Falco on
// node-2.
func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	if o.Wait == 0 {
		o.Wait = 20 * time.Millisecond
	}
	if o.Settle == 0 {
		o.Settle = time.Nanosecond
	}
	if o.Recheck == 0 {
		o.Recheck = time.Millisecond
	}
	w := &world{roster: roster.New(), registry: prometheus.NewRegistry(), reviewer: &reviewer{
		tokens: map[string]Identity{
			"viewer":   {User: "viewer"},
			"stranger": {User: "stranger"},
			"pod": {User: "falco", Extra: map[string][]string{
				extraPodName: {"falco-1"}, extraPodUID: {"falco-1"}, extraNode: {"node-1"},
			}},
		},
		may: map[string]string{"viewer": "node-1"},
	}}
	w.roster.ReplaceNodes([]roster.Node{
		{Name: "node-1", UID: "n1", Addresses: addresses("192.168.0.1", "fd00::1"), CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd01::/64")}},
		{Name: "node-2", UID: "n2", Addresses: addresses("192.168.0.2"), CIDRs: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}},
	})
	w.roster.ReplacePods(func(yield func(roster.Pod) bool) {
		for _, p := range []roster.Pod{
			{UID: "falco-1", Name: "falco-1", Node: "node-1", Addresses: addresses("10.1.0.10", "fd01::10"), Falco: true, Running: true},
			{UID: "falco-2", Node: "node-2", Addresses: addresses("10.2.0.10"), Falco: true, Running: true},
			{UID: "opted-in", Node: "node-1", Addresses: addresses("10.1.0.11"), OptedIn: true, Running: true},
			{UID: "out", Node: "node-1", Addresses: addresses("10.1.0.13"), Falco: true, OptedOut: true, Running: true},
			{UID: "other-1", Node: "node-1", Addresses: addresses("10.1.0.12"), Running: true},
			{UID: "done", Node: "node-1", Addresses: addresses("172.16.0.1"), Falco: true, Finished: true},
			{UID: "on-host", Node: "node-1", Addresses: addresses("192.168.0.1"), HostNetwork: true, Falco: true, Running: true},
		} {
			if !yield(p) {
				return
			}
		}
	})
	keys := &Keys{key: []byte("0123456789abcdef0123456789abcdef"), news: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
	w.Guard = New(w.roster, keys, NewPeople(NewReviews(w.reviewer, nil), w.reviewer), slog.New(slog.DiscardHandler), NewMetrics(w.registry), o)
	return w
}

func addresses(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func from(address string) Caller {
	return Caller{Address: netip.MustParseAddr(address), Private: true}
}

func (w *world) ticket(node, pod string) string {
	t, _ := w.keys.make(node, pod)
	return t.String()
}

// rotate replaces the key of tickets.
func (w *world) rotate(key []byte) {
	w.keys.mu.Lock()
	defer w.keys.mu.Unlock()
	w.keys.key = key
	close(w.keys.news)
	w.keys.news = make(chan struct{})
}

// undecided waits until somebody is kept waiting.
func (w *world) undecided(t *testing.T) {
	t.Helper()
	eventually(t, "the guard waits", func() bool { return testutil.ToFloat64(w.metrics.undecided) > 0 })
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// verdict is a decision in short: by what, or why not.
func (w *world) verdict(t *testing.T, c Caller, sent string) (node, verdict string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g, err := w.Decide(ctx, c, sent)
	if err == nil {
		return g.Node, string(g.By)
	}
	r := new(Refusal)
	if !errors.As(err, &r) {
		t.Fatalf("error is no refusal: %v", err)
	}
	return "", []string{"refused ", "unknown ", "unauthenticated "}[r.Kind] + r.Code
}
