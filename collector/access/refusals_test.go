package access

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestAuthorizeAll: a token of who may list nodes/stream, and nothing else; what
// is audited changes nothing of it.
func TestAuthorizeAll(t *testing.T) {
	for name, c := range map[string]struct {
		from    string
		secured bool
		token   string
		want    codes.Code
	}{
		"who may list":                        {"172.16.0.9:1", true, "lister", codes.OK},
		"who may read one node":               {"172.16.0.9:1", true, "viewer", codes.PermissionDenied},
		"who may nothing":                     {"172.16.0.9:1", true, "stranger", codes.PermissionDenied},
		"a wired pod's own token":             {"10.1.0.10:1", true, "pod", codes.PermissionDenied},
		"a token that is none":                {"172.16.0.9:1", true, "x", codes.Unauthenticated},
		"who may list, readable by others":    {"172.16.0.9:1", false, "lister", codes.Unauthenticated},
		"Falco, by its address":               {"10.1.0.10:1", true, "", codes.Unauthenticated},
		"a node, by its address":              {"192.168.0.1:1", true, "", codes.Unauthenticated},
		"loopback, such as a port-forward's":  {"127.0.0.1:1", true, "", codes.Unauthenticated},
		"a caller without a network address":  {"", true, "", codes.Unauthenticated},
		"a loopback in plaintext, with token": {"127.0.0.1:1", false, "lister", codes.Unauthenticated}, // to an address that is none
	} {
		for _, audit := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, audit %t", name, audit), func(t *testing.T) {
				w := newWorld(t, Options{Audit: audit})
				w.reviewer.tokens["lister"] = Identity{User: "lister"}
				w.reviewer.may["lister"] = everyNode
				var headers []string
				if c.token != "" {
					headers = []string{"authorization", "Bearer " + c.token}
				}
				err := w.AuthorizeAll(request(t.Context(), c.from, "10.9.9.9:1", c.secured, headers...))
				if status.Code(err) != c.want {
					t.Errorf("%v, want %s", err, c.want)
				}
			})
		}
	}
}

// TestRefusals: who was refused what, each once, with how often.
func TestRefusals(t *testing.T) {
	w := newWorld(t, Options{})
	decide := func(address, sent string) {
		t.Helper()
		if _, err := w.Decide(t.Context(), from(address), sent); err == nil {
			t.Fatalf("%s is let through", address)
		}
	}
	decide("10.2.0.10", "node-1")
	decide("10.1.0.12", "node-1")
	decide("10.2.0.10", "node-1")
	decide("10.2.0.10", w.ticket("node-1", "falco-1"))    // stolen
	decide("192.168.0.1", "node-1/falco-1/AAAA")          // forged: of whom is not known
	decide("172.16.0.1", w.ticket("node-1", "done"))      // good, of a pod that has finished
	decide("10.2.0.10", "node-2/falco-2/no-such-mac-AAA") // forged, from a pod
	var got []string
	for _, r := range w.Refusals("node-1") {
		got = append(got, fmt.Sprint(r.Of, " ", r.Node, " ", r.Pod, " ", r.Address, " ", r.Code, " ", r.Times))
	}
	want := []string{
		"subscription node-1 done 172.16.0.1 ticket_pod_finished 1",
		"subscription node-1  192.168.0.1 ticket_forged 1",
		"subscription node-1 falco-2 10.2.0.10 ticket_other_pod 1",
		"subscription node-1 falco-2 10.2.0.10 address_other_node 2",
		"subscription node-1 other-1 10.1.0.12 address_no_subscriber 1",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	// What falco-2, which is on node-2, asked of node-1, too.
	if n := len(w.Refusals("node-2")); n != 3 {
		t.Errorf("%d of node-2 and its pods, want 3: %+v", n, w.Refusals("node-2"))
	}
	if n := len(w.Refusals("")); n != len(want)+1 {
		t.Errorf("%d of all nodes, want %d", n, len(want)+1)
	}
}

// TestRefusalsOfTickets stand beside those of every node; a revoked stream's is
// one too.
func TestRefusalsOfTickets(t *testing.T) {
	w := newWorld(t, Options{})
	s := NewTickets(w.Guard, NewReviews(w.reviewer, nil))
	if _, err := s.Issue(request(t.Context(), "10.2.0.10:1", "10.9.9.9:1", true, "authorization", "Bearer pod"), nil); err == nil {
		t.Fatal("another pod's token is good")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g, err := w.Decide(ctx, from("10.1.0.10"), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = w.Start(ctx) }()
	w.roster.DeletePod("falco-1")
	<-g.Revoked
	for i, want := range []string{OfRevocation + " node-1 falco-1", OfTicket + "  falco-2"} {
		if r := w.Refusals("node-1"); len(r) != 2 || r[i].Of+" "+r[i].Node+" "+r[i].Pod != want {
			t.Errorf("%+v, want %q at %d", r, want, i)
		}
	}
}

// TestRefusalsAreBounded, and who is refused a lot pushes out its own.
func TestRefusalsAreBounded(t *testing.T) {
	var l refusals
	add := func(a netip.Addr, node string) {
		l.add(OfSubscription, asker{address: a, node: node}, &Refusal{Code: codeForged}, false)
	}
	quiet, loud := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	add(quiet, "node")
	for i := range 10 * maxRefusals {
		add(loud, fmt.Sprint("node-", i))
	}
	if len(l.all) != 1+maxOfOneAsker || l.all[0].Address != quiet || l.all[len(l.all)-1].Node != fmt.Sprint("node-", 10*maxRefusals-1) {
		t.Errorf("%d are kept: %+v", len(l.all), l.all)
	}
	for i := range 10 * maxRefusals {
		add(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), "node")
	}
	if len(l.all) != maxRefusals {
		t.Errorf("%d are kept", len(l.all))
	}
}
