package access

import (
	"context"
	"errors"
	"strings"
	"testing"
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
		"a ticket of a pod that is gone":       {from("10.1.0.10"), w.ticket("node-1", "gone"), "refused ticket_pod_gone"},
		"a ticket of a finished pod":           {from("172.16.0.1"), w.ticket("node-1", "done"), "refused ticket_pod_finished"},
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
	before := testutil.ToFloat64(w.metrics.authorized.WithLabelValues(string(ByAddress)))
	go func() {
		g, err := w.Decide(t.Context(), c, sent)
		answers <- answer{g, err}
	}()
	_ = before
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
	o := Options{Wait: patience}
	t.Run("for a pod's address", func(t *testing.T) {
		w := newWorld(t, o)
		g, err := later(t, w, from("172.16.0.9"), "node-1", func() {
			w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-1", Falco: true})
			w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-1", Falco: true, Addresses: addresses("172.16.0.9")})
		})
		if err != nil || g.By != ByAddress {
			t.Errorf("%+v, %v", g, err)
		}
	})
	t.Run("for the ticket's pod", func(t *testing.T) {
		w := newWorld(t, o)
		g, err := later(t, w, from("172.16.0.9"), w.ticket("node-1", "new"), func() {
			w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-1", Falco: true})
		})
		if err != nil || g.By != ByTicket {
			t.Errorf("%+v, %v", g, err)
		}
	})
	t.Run("for the pod before at the address to be gone", func(t *testing.T) {
		w := newWorld(t, o)
		w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-1", Falco: true})
		g, err := later(t, w, from("10.1.0.12"), w.ticket("node-1", "new"), func() { w.roster.DeletePod("other-1") })
		if err != nil || g.By != ByTicket {
			t.Errorf("%+v, %v", g, err)
		}
	})
	t.Run("for an address of the range to be a pod's", func(t *testing.T) {
		w := newWorld(t, Options{Wait: patience, Settle: patience})
		_, err := later(t, w, from("10.1.0.99"), "node-1", func() {
			w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-1", Addresses: addresses("10.1.0.99")})
		})
		if r := new(Refusal); !errors.As(err, &r) || r.Code != codeAddressPod {
			t.Errorf("a pod that has just started read its node: %v", err)
		}
	})
	t.Run("not beyond the caller's end", func(t *testing.T) {
		w := newWorld(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := w.Decide(ctx, from("172.16.0.9"), w.ticket("node-1", "new"))
		if r := new(Refusal); !errors.As(err, &r) || r.Kind != Unknown {
			t.Errorf("%v", err)
		}
	})
}

// TestRevokes: a grant ends with what it stood on, and no other does.
func TestRevokes(t *testing.T) {
	w := newWorld(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.Start(ctx)
	}()
	defer func() { cancel(); <-done }()
	decide := func(address, sent string) <-chan struct{} {
		g, err := w.Decide(ctx, from(address), sent)
		if err != nil {
			t.Fatal(err)
		}
		return g.Revoked
	}
	byTicket, byAddress := decide("10.1.0.10", w.ticket("node-1", "falco-1")), decide("10.1.0.10", "node-1")
	byNode, stays := decide("10.1.0.50", "node-1"), decide("10.1.0.11", "node-1")
	w.roster.DeletePod("falco-1")
	w.roster.ApplyPod(roster.Pod{UID: "late", Node: "node-1", Addresses: addresses("10.1.0.50")})
	for name, revoked := range map[string]<-chan struct{}{"ticket": byTicket, "address": byAddress, "node's address": byNode} {
		select {
		case <-revoked:
		case <-time.After(patience):
			t.Errorf("the grant by %s still stands", name)
		}
	}
	select {
	case <-stays:
		t.Error("a grant that stands was revoked")
	default:
	}
}
