package access

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/metawire/metawire/collector/roster"
)

func TestDecide(t *testing.T) {
	w := newWorld(t, Options{})
	good := w.ticket("node-1", "falco-1")
	last := good[len(good)-2:]
	forged := strings.TrimSuffix(good, last) + map[bool]string{true: "BA", false: "AA"}[last == "AA"]
	bearer := func(c Caller, token string) Caller { c.Bearer = token; return c }
	open := func(c Caller) Caller { c.Private = false; return c }
	for name, c := range map[string]struct {
		caller Caller
		sent   string
		want   string
	}{
		"Falco's own address":                  {from("10.1.0.10"), "node-1", "address"},
		"its IPv6 address":                     {from("fd01::10"), "node-1", "address"},
		"its address mapped into IPv6":         {from("::ffff:10.1.0.10"), "node-1", "address"},
		"a pod that opted in":                  {from("10.1.0.11"), "node-1", "address"},
		"a pod that may not subscribe":         {from("10.1.0.12"), "node-1", "refused address_no_subscriber"},
		"Falco of another node":                {from("10.2.0.10"), "node-1", "refused address_other_node"},
		"a finished pod's address":             {from("172.16.0.1"), "node-1", "unknown address_unknown"},
		"an address that nobody knows":         {from("172.16.0.2"), "node-1", "unknown address_unknown"},
		"no address":                           {Caller{}, "node-1", "unknown address_unknown"},
		"the node's address":                   {from("192.168.0.1"), "node-1", "nodeAddress"},
		"the node's IPv6 address":              {from("fd00::1"), "node-1", "nodeAddress"},
		"the node's gateway":                   {from("10.1.0.1"), "node-1", "nodeAddress"},
		"the node's IPv6 gateway":              {from("fd01::1"), "node-1", "nodeAddress"},
		"another node's address":               {from("192.168.0.2"), "node-1", "refused address_other_node"},
		"another node's gateway":               {from("10.2.0.1"), "node-1", "refused address_other_node"},
		"loopback":                             {from("127.0.0.1"), "node-1", "refused address_loopback"},
		"loopback, IPv6":                       {from("::1"), "node-1", "refused address_loopback"},
		"loopback, mapped":                     {from("::ffff:127.0.0.1"), "node-1", "refused address_loopback"},
		"a ticket from its pod":                {from("10.1.0.10"), good, "ticket"},
		"a ticket through a gateway":           {from("10.1.0.1"), good, "ticket"},
		"a ticket from nobody knows where":     {from("172.16.0.2"), good, "ticket"},
		"a ticket of a pod on the host":        {from("192.168.0.1"), w.ticket("node-1", "on-host"), "ticket"},
		"a ticket without TLS":                 {open(from("10.1.0.10")), good, "ticket"},
		"a stolen ticket from a pod":           {from("10.1.0.12"), good, "refused ticket_other_pod"},
		"a stolen ticket of a pod on the host": {from("10.1.0.12"), w.ticket("node-1", "on-host"), "refused ticket_other_pod"},
		"a stolen ticket from another Falco":   {from("10.2.0.10"), good, "refused ticket_other_pod"},
		"a forged ticket":                      {from("10.1.0.10"), forged, "refused ticket_forged"},
		"a ticket without a MAC":               {from("10.1.0.10"), "node-1/falco-1/", "refused ticket_forged"},
		"half a ticket":                        {from("10.1.0.10"), "node-1/falco-1", "refused ticket_forged"},
		"another node's name on a ticket":      {from("10.1.0.10"), strings.Replace(good, "node-1", "node-2", 1), "refused ticket_forged"},
		"another pod's UID on a ticket":        {from("10.1.0.10"), strings.Replace(good, "falco-1", "falco-2", 1), "refused ticket_forged"},
		"a ticket of a pod that is gone":       {from("10.1.0.10"), w.ticket("node-1", "gone"), "unknown ticket_pod_unknown"},
		"a ticket of a finished pod":           {from("172.16.0.1"), w.ticket("node-1", "done"), "refused ticket_pod_finished"},
		"a ticket of a pod that may have none": {from("10.1.0.12"), w.ticket("node-1", "other-1"), "refused ticket_no_subscriber"},
		"a ticket of a pod that opted out":     {from("10.1.0.13"), w.ticket("node-1", "out"), "refused ticket_no_subscriber"},
		"the address of a pod that opted out":  {from("10.1.0.13"), "node-1", "address"},
		"a ticket for where the pod is not":    {from("10.2.0.10"), w.ticket("node-1", "falco-2"), "refused ticket_other_node"},
		"a token of who may":                   {bearer(from("127.0.0.1"), "viewer"), "node-1", "token"},
		"a token of who may read another node": {bearer(from("127.0.0.1"), "viewer"), "node-2", "refused token_denied"},
		"a token of who may not":               {bearer(from("127.0.0.1"), "stranger"), "node-1", "refused token_denied"},
		"a token that is not good":             {bearer(from("10.1.0.10"), "bad"), "node-1", "unauthenticated token_invalid"},
		"a token without TLS":                  {open(bearer(from("10.9.0.1"), "viewer")), "node-1", "unauthenticated token_plaintext"},
		"a token that is very long":            {bearer(from("10.9.0.1"), strings.Repeat("x", maxToken+1)), "node-1", "unauthenticated token_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			node, got := w.verdict(t, c.caller, c.sent)
			if got != c.want {
				t.Errorf("decided %q, want %q", got, c.want)
			}
			if authorized := !strings.Contains(c.want, " "); authorized && node != "node-1" {
				t.Errorf("granted %q", node)
			}
		})
	}
	if problems, err := testutil.GatherAndLint(w.registry); err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

// TestDistrustedNodeAddresses: they prove nothing, neither the right nor the
// wrong node; a pod's own address and a ticket still do.
func TestDistrustedNodeAddresses(t *testing.T) {
	w := newWorld(t, Options{DistrustNodeAddresses: true})
	for address, want := range map[string]string{
		"192.168.0.1": "refused address_of_node_distrusted",
		"10.1.0.1":    "refused address_of_node_distrusted",
		"10.1.0.10":   "address",
	} {
		if _, got := w.verdict(t, from(address), "node-1"); got != want {
			t.Errorf("%s: decided %q, want %q", address, got, want)
		}
	}
	if _, got := w.verdict(t, from("192.168.0.1"), w.ticket("node-1", "on-host")); got != "ticket" {
		t.Errorf("a ticket: decided %q", got)
	}
}

// TestWithoutKeys: nobody can tell whether a ticket is good, so the address decides.
func TestWithoutKeys(t *testing.T) {
	w := newWorld(t, Options{})
	w.keys = nil
	for address, want := range map[string]string{"10.1.0.10": "address", "10.1.0.12": "refused address_no_subscriber"} {
		if _, got := w.verdict(t, from(address), "node-1/x/y"); got != want {
			t.Errorf("%s: decided %q, want %q", address, got, want)
		}
	}
}

// TestAudit serves everybody and counts whom it would have refused.
func TestAudit(t *testing.T) {
	w := newWorld(t, Options{Audit: true})
	for _, sent := range []string{"node-1", "node-1/x/y"} {
		if node, got := w.verdict(t, from("10.2.0.10"), sent); got != string(ByNothing) || node != "node-1" {
			t.Errorf("%s: decided %q for %q", sent, got, node)
		}
	}
	for _, code := range []string{codeAddressNode, codeForged} {
		if n := testutil.ToFloat64(w.metrics.refusals.WithLabelValues(code)); n != 1 {
			t.Errorf("%s was counted %v times", code, n)
		}
	}
	if node, got := w.verdict(t, from("10.1.0.10"), "node-1"); got != "address" || node != "node-1" {
		t.Errorf("decided %q for %q", got, node)
	}
}

// later decides while something is not known yet, and makes it known once the
// guard is waiting.
func later(t *testing.T, w *world, c Caller, sent string, then func()) (Grant, error) {
	t.Helper()
	type answer struct {
		Grant
		error
	}
	answers := make(chan answer, 1)
	go func() {
		g, err := w.Decide(t.Context(), c, sent)
		answers <- answer{g, err}
	}()
	w.undecided(t)
	select {
	case a := <-answers:
		t.Fatalf("decided before it was known: %+v", a)
	default:
	}
	then()
	select {
	case a := <-answers:
		return a.Grant, a.error
	case <-time.After(patience):
		t.Fatal("no answer")
		return Grant{}, nil
	}
}

// TestWaits: what becomes known late is decided then.
func TestWaits(t *testing.T) {
	fresh := roster.Pod{UID: "new", Node: "node-1", Falco: true}
	at := func(p roster.Pod, all ...string) roster.Pod { p.Addresses = addresses(all...); return p }
	for name, c := range map[string]struct {
		from, sent string
		before     *roster.Pod
		then       func(w *world)
		want       string // by what, or why not
	}{
		"for a pod's address": {
			"172.16.0.9", "node-1", &fresh,
			func(w *world) { w.roster.ApplyPod(at(fresh, "172.16.0.9")) }, "address",
		},
		"for the ticket's pod": {
			"172.16.0.9", "new", nil,
			func(w *world) { w.roster.ApplyPod(at(fresh, "172.16.0.9")) }, "ticket",
		},
		"for the ticket's pod to have the address": {
			"10.1.0.99", "new", &fresh,
			func(w *world) { w.roster.ApplyPod(at(fresh, "10.1.0.99")) }, "ticket",
		},
		"for the pod before at the address to be gone": {
			"10.1.0.12", "new", &fresh,
			func(w *world) {
				w.roster.ApplyPod(at(fresh, "10.1.0.12"))
				w.roster.DeletePod("other-1")
			}, "ticket",
		},
		"for who may not subscribe to leave the address": {
			"10.1.0.12", "node-1", nil,
			func(w *world) { w.roster.ApplyPod(at(fresh, "10.1.0.12")) }, "address",
		},
		"for a pod of another node to leave the address": {
			"10.2.0.10", "node-1", nil,
			func(w *world) { w.roster.ApplyPod(at(fresh, "10.2.0.10")) }, "address",
		},
		"for the address to be another pod's no more": {
			"10.2.0.10", "falco-1", nil,
			func(w *world) {
				w.roster.ApplyPod(roster.Pod{UID: "falco-1", Node: "node-1", Falco: true, Addresses: addresses("10.2.0.10")})
			}, "ticket",
		},
		"for an address of another node's range": {
			"10.2.0.99", "node-1", &fresh,
			func(w *world) { w.roster.ApplyPod(at(fresh, "10.2.0.99")) }, "address",
		},
		"for a new key": {
			"10.1.0.10", "node-1/falco-1/" + mac([]byte("another"), "node-1", "falco-1"), nil,
			func(w *world) { w.rotate([]byte("another")) }, "ticket",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{Wait: patience, Settle: patience})
			if c.before != nil {
				w.roster.ApplyPod(*c.before)
			}
			sent := c.sent
			if sent != "node-1" && !strings.Contains(sent, "/") {
				sent = w.ticket("node-1", sent)
			}
			g, err := later(t, w, from(c.from), sent, func() { c.then(w) })
			if err != nil || string(g.By) != c.want {
				t.Errorf("%+v, %v", g, err)
			}
		})
	}
}

// TestFreshPodWithAnothersTicket: the address of a pod that has just started is
// nobody's for a moment; that proves nothing, for a ticket and for the range.
func TestFreshPodWithAnothersTicket(t *testing.T) {
	for name, sent := range map[string]func(*world) string{
		"ticket": func(w *world) string { return w.ticket("node-2", "falco-2") },
		"range":  func(*world) string { return "node-1" },
	} {
		for _, address := range []string{"10.1.0.99", "172.16.0.9"} { // of a range, and of none
			t.Run(name+" "+address, func(t *testing.T) {
				w := newWorld(t, Options{Wait: time.Second, Settle: 900 * time.Millisecond})
				_, err := later(t, w, from(address), sent(w), func() {
					w.roster.ApplyPod(roster.Pod{UID: "thief", Node: "node-1", Addresses: addresses(address)})
				})
				if r := new(Refusal); !errors.As(err, &r) || r.Code != codeStolen && r.Code != codeAddressPod {
					t.Errorf("a pod that has just started read a node: %v", err)
				}
			})
		}
	}
}

// TestServedAtOnce: whose address is known is not kept waiting.
func TestServedAtOnce(t *testing.T) {
	w := newWorld(t, Options{Wait: time.Hour, Settle: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, c := range []struct{ from, node, pod string }{
		{"10.1.0.10", "node-1", "falco-1"},
		{"192.168.0.1", "node-1", "on-host"},
		{"192.168.0.2", "node-1", "falco-1"}, // behind a node
		{"10.1.0.10", "node-1", ""},
		{"192.168.0.1", "node-1", ""},
	} {
		sent := c.node
		if c.pod != "" {
			sent = w.ticket(c.node, c.pod)
		}
		if _, err := w.Decide(ctx, from(c.from), sent); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestRefusedOnlyWhatStays: what came to be known a moment ago is not enough to
// refuse a caller for good.
func TestRefusedOnlyWhatStays(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  string
	}{
		{2 * time.Second, "refused address_other_node"},
		{9 * time.Second, "unknown address_other_node"},
	} {
		t.Run(c.after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{Wait: 10 * time.Second, Settle: 3 * time.Second})
				timer := time.AfterFunc(c.after, func() {
					w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-2", Falco: true, Addresses: addresses("172.16.0.9")})
				})
				defer timer.Stop()
				began := time.Now()
				if _, got := w.verdict(t, from("172.16.0.9"), "node-1"); got != c.want || time.Since(began) != 10*time.Second {
					t.Errorf("decided %q after %s, want %q", got, time.Since(began), c.want)
				}
			})
		})
	}
}

// TestGoneCallers are not refused: nobody was there to be.
func TestGoneCallers(t *testing.T) {
	for _, audit := range []bool{false, true} {
		w := newWorld(t, Options{Wait: patience, Audit: audit})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := w.Decide(ctx, from("172.16.0.9"), w.ticket("node-1", "new"))
			done <- err
		}()
		w.undecided(t)
		cancel()
		if r := new(Refusal); !errors.As(<-done, &r) || r.Kind != Unknown {
			t.Errorf("%v", r)
		}
		if n := testutil.ToFloat64(w.metrics.refusals.WithLabelValues(codePodUnknown)); n != 0 {
			t.Errorf("%v refusals are counted", n)
		}
	}
}

// TestRangesThatTellNothing: where pods have addresses without regard to their
// nodes' ranges, a range proves no node, neither the right nor the wrong one.
func TestRangesThatTellNothing(t *testing.T) {
	w := newWorld(t, Options{})
	w.roster.ApplyPod(roster.Pod{UID: "stray", Node: "node-2", Addresses: addresses("10.1.0.77")})
	for address, want := range map[string]string{
		"10.1.0.1":    "unknown address_unknown",
		"10.2.0.1":    "unknown address_unknown",
		"192.168.0.1": "nodeAddress",
		"192.168.0.2": "refused address_other_node",
	} {
		if _, got := w.verdict(t, from(address), "node-1"); got != want {
			t.Errorf("%s: decided %q, want %q", address, got, want)
		}
	}
}

// run runs the guard until the end of the test.
func (w *world) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.Start(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// granted are grants of each kind, by name, and one that nothing ends.
func (w *world) granted(t *testing.T) (all map[string]<-chan struct{}, stays <-chan struct{}) {
	t.Helper()
	decide := func(address, sent string) <-chan struct{} {
		g, err := w.Decide(t.Context(), from(address), sent)
		if err != nil {
			t.Fatal(err)
		}
		return g.Revoked
	}
	return map[string]<-chan struct{}{
		"ticket": decide("10.1.0.10", w.ticket("node-1", "falco-1")), "address": decide("10.1.0.10", "node-1"),
		"node's address": decide("10.1.0.50", "node-1"),
	}, decide("10.1.0.11", "node-1")
}

// change takes away what they stand on.
func (w *world) change() {
	w.roster.DeletePod("falco-1")
	w.roster.ApplyPod(roster.Pod{UID: "late", Node: "node-1", Addresses: addresses("10.1.0.50")})
}

func ends(t *testing.T, name string, revoked <-chan struct{}) {
	t.Helper()
	select {
	case <-revoked:
	case <-time.After(patience):
		t.Errorf("the grant by %s still stands", name)
	}
}

func stands(t *testing.T, name string, revoked <-chan struct{}) {
	t.Helper()
	select {
	case <-revoked:
		t.Errorf("the grant by %s was revoked", name)
	default:
	}
}

// TestRevokes: a grant ends with what it stood on, and no other does.
func TestRevokes(t *testing.T) {
	w := newWorld(t, Options{})
	w.run(t)
	all, stays := w.granted(t)
	w.change()
	for name, revoked := range all {
		ends(t, name, revoked)
	}
	stands(t, "another address", stays)
}

// TestAuditRevokesNothing: it counts what would have ended.
func TestAuditRevokesNothing(t *testing.T) {
	w := newWorld(t, Options{Audit: true})
	w.run(t)
	all, _ := w.granted(t)
	w.change()
	eventually(t, "they are counted", func() bool {
		return testutil.ToFloat64(w.metrics.revoked.WithLabelValues(codePodUnknown)) == 1 &&
			testutil.ToFloat64(w.metrics.revoked.WithLabelValues(codeAddressPod)) == 1
	})
	for name, revoked := range all {
		stands(t, name, revoked)
	}
}

// TestNewKeyRevokes: streams that stand on tickets of the old key end.
func TestNewKeyRevokes(t *testing.T) {
	w := newWorld(t, Options{})
	w.run(t)
	all, stays := w.granted(t)
	w.roster.ApplyPod(roster.Pod{UID: "late", Node: "node-1", Addresses: addresses("10.1.0.50")})
	ends(t, "node's address", all["node's address"]) // it has looked, and waits for changes
	w.rotate([]byte("another"))
	ends(t, "ticket", all["ticket"])
	stands(t, "address", all["address"])
	stands(t, "another address", stays)
}

// TestChangedBeforeItIsKept: nothing is missed between the decision and the
// first look again.
func TestChangedBeforeItIsKept(t *testing.T) {
	w := newWorld(t, Options{}) // does not run: only keep looks
	_, _, k, err := w.judge(t.Context(), from("10.1.0.10"), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	w.change()
	ends(t, "address", w.keep(t.Context(), k))
}

// TestTokensAreReviewedAgain: one that is no longer good, or of whom may no
// longer, ends its stream; an API server that does not answer ends none.
func TestTokensAreReviewedAgain(t *testing.T) {
	w := newWorld(t, Options{Renew: 20 * time.Millisecond})
	w.run(t)
	c := from("127.0.0.1")
	c.Bearer = "viewer"
	decide := func() <-chan struct{} {
		g, err := w.Decide(t.Context(), c, "node-1")
		if err != nil {
			t.Fatal(err)
		}
		return g.Revoked
	}
	revoked := decide()
	w.reviewer.fails(errors.New("no answer"))
	before := w.reviewer.count()
	eventually(t, "it is reviewed again", func() bool { return w.reviewer.count() > before+2 })
	stands(t, "a token", revoked)
	w.reviewer.forbid("viewer")
	w.reviewer.fails(nil)
	ends(t, "a token of who may no longer", revoked)
	if n := testutil.ToFloat64(w.metrics.revoked.WithLabelValues(codeTokenDenied)); n != 1 {
		t.Errorf("counted %v times", n)
	}
}
