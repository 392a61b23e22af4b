package access

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/ticket"
)

// request is the context of a request from the address to ours.
func request(ctx context.Context, from, to string, secured bool, headers ...string) context.Context {
	p := &peer.Peer{}
	for text, a := range map[string]*net.Addr{from: &p.Addr, to: &p.LocalAddr} {
		if text != "" {
			*a = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text))
		}
	}
	if secured {
		p.AuthInfo = credentials.TLSInfo{State: tls.ConnectionState{}}
	}
	return metadata.NewIncomingContext(peer.NewContext(ctx, p), metadata.Pairs(headers...))
}

func TestCaller(t *testing.T) {
	const pod, ours = "10.1.0.10:1234", "10.9.9.9:45000"
	for name, c := range map[string]struct {
		ctx  context.Context //nolint:containedctx // what is read
		want Caller
	}{
		"plaintext":              {request(t.Context(), pod, ours, false), Caller{Address: netip.MustParseAddr("10.1.0.10")}},
		"TLS":                    {request(t.Context(), pod, ours, true), from("10.1.0.10")},
		"mapped into IPv6":       {request(t.Context(), "[::ffff:10.1.0.10]:1", ours, true), from("10.1.0.10")},
		"with a zone":            {request(t.Context(), "[fe80::1%eth0]:1", ours, true), from("fe80::1")},
		"a port-forward":         {request(t.Context(), "127.0.0.1:1", "127.0.0.1:45000", false), from("127.0.0.1")},
		"loopback as the source": {request(t.Context(), "127.0.0.1:1", ours, false), Caller{Address: netip.MustParseAddr("127.0.0.1")}},
		"a token":                {request(t.Context(), pod, ours, true, "authorization", "bearer  abc "), Caller{netip.MustParseAddr("10.1.0.10"), "abc", true}},
		"another scheme":         {request(t.Context(), pod, ours, true, "authorization", "Basic abc"), from("10.1.0.10")},
		"nothing":                {t.Context(), Caller{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := caller(c.ctx); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestStatusOf(t *testing.T) {
	for code, err := range map[codes.Code]error{
		codes.PermissionDenied: &Refusal{Kind: Refused, Reason: "why"},
		codes.Unauthenticated:  &Refusal{Kind: Unauthenticated, Reason: "why"},
		codes.Aborted:          &Refusal{Kind: Unknown, Reason: "why"},
	} {
		if s := status.Convert(statusOf(err)); s.Code() != code || s.Message() != "why" {
			t.Errorf("%v: %v", err, s)
		}
	}
	if s := status.Convert(statusOf(errors.New("etcd-0 is down"))); s.Code() != codes.Aborted || strings.Contains(s.Message(), "etcd") {
		t.Errorf("a stranger is told %v", s)
	}
}

// TestAuthorize: the wire's side of Decide.
func TestAuthorize(t *testing.T) {
	w := newWorld(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	grant, err := w.Authorize(request(ctx, "10.1.0.10:1", "10.9.9.9:1", true), w.ticket("node-1", "falco-1"))
	if grant.Node != "node-1" || grant.Pod != "falco-1" || grant.By != ByTicket || grant.Revoked == nil || err != nil {
		t.Errorf("%+v, %v", grant, err)
	}
	if _, err := w.Authorize(request(ctx, "10.2.0.10:1", "10.9.9.9:1", true), "node-1"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another node's pod: %v", err)
	}
	w.reviewer.fails(errors.New("etcd-0 is down"))
	_, err = w.Authorize(request(ctx, "127.0.0.1:1", "127.0.0.1:2", false, "authorization", "Bearer x"), "node-1")
	if status.Code(err) != codes.Aborted || strings.Contains(err.Error(), "etcd") {
		t.Errorf("a stranger is told %v", err)
	}
}

// TestIssue: who gets a ticket, and who does not.
func TestIssue(t *testing.T) {
	bound := func(pod, node string) Identity {
		who := Identity{User: "sa", Extra: map[string][]string{extraPodName: {pod}, extraPodUID: {pod}}}
		if node != "" {
			who.Extra[extraNode] = []string{node}
		}
		return who
	}
	const pod, host, ours = "10.1.0.10:1", "192.168.0.1:1", "10.9.9.9:1"
	for name, c := range map[string]struct {
		who     Identity
		from    string
		plain   bool
		code    codes.Code
		because string // the metric's reason; empty: a ticket
	}{
		"Falco":                            {who: bound("falco-1", "node-1"), from: pod},
		"of an API server without nodes":   {who: bound("falco-1", ""), from: pod},
		"on the host":                      {who: bound("on-host", "node-1"), from: host},
		"behind a gateway":                 {who: bound("falco-1", "node-1"), from: "10.1.0.1:1"},
		"not known yet":                    {who: bound("new", "node-1"), from: "10.1.0.1:1"},
		"over a port-forward":              {who: bound("falco-1", "node-1"), from: "127.0.0.1:1", plain: true, code: codes.Unauthenticated, because: codeTokenPlaintext},
		"without TLS":                      {who: bound("falco-1", "node-1"), from: pod, plain: true, code: codes.Unauthenticated, because: codeTokenPlaintext},
		"not bound to a pod":               {who: Identity{User: "sa"}, from: pod, code: codes.PermissionDenied, because: codeTokenUnbound},
		"bound to two":                     {who: Identity{Extra: map[string][]string{extraPodUID: {"a", "b"}, extraPodName: {"a"}}}, from: pod, code: codes.PermissionDenied, because: codeTokenUnbound},
		"from another Falco":               {who: bound("falco-1", "node-1"), from: "10.2.0.10:1", code: codes.PermissionDenied, because: codeStolen},
		"from a pod that may have none":    {who: bound("falco-1", "node-1"), from: "10.1.0.12:1", code: codes.Aborted, because: codeTicketPod},
		"of a pod that may have none":      {who: bound("other-1", "node-1"), from: "10.1.0.1:1", code: codes.PermissionDenied, because: codeTicketPod},
		"of a pod that opted out":          {who: bound("out", "node-1"), from: "10.1.0.13:1", code: codes.PermissionDenied, because: codeTicketPod},
		"not known, and nobody says where": {who: bound("new", ""), from: "10.1.0.1:1", code: codes.Aborted, because: codePodUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.reviewer.tokens["t"] = c.who
			s := NewTickets(w.Guard, NewReviews(w.reviewer, nil))
			r, err := s.Issue(request(t.Context(), c.from, ours, !c.plain, "authorization", "Bearer t"), nil)
			if c.because != "" {
				if n := testutil.ToFloat64(w.metrics.denied.WithLabelValues(c.because)); status.Code(err) != c.code || n != 1 {
					t.Errorf("%v, want %s; %s is counted %v times", err, c.code, c.because, n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _ := ticket.Parse(r.GetTicket())
			if good, _ := w.keys.good(got); !good || got.Node != "node-1" || got.PodUID != c.who.one(extraPodUID) {
				t.Errorf("a ticket %+v, good: %t", got, good)
			}
		})
	}
}

// TestIssueWithoutToken asks the API server nothing.
func TestIssueWithoutToken(t *testing.T) {
	w := newWorld(t, Options{})
	s := NewTickets(w.Guard, NewReviews(w.reviewer, nil))
	for _, c := range []struct {
		from, token string
		code        codes.Code
	}{
		{"10.1.0.10:1", "", codes.Unauthenticated},
		{"10.1.0.10:1", strings.Repeat("x", maxToken+1), codes.Unauthenticated},
		{"10.1.0.12:1", "t", codes.Aborted}, // a pod that gets no ticket
	} {
		if _, err := s.Issue(request(t.Context(), c.from, "10.9.9.9:1", true, "authorization", "Bearer "+c.token), nil); status.Code(err) != c.code {
			t.Errorf("%v, want %s", err, c.code)
		}
	}
	if n := w.reviewer.count(); n != 0 {
		t.Errorf("%d reviews", n)
	}
}

// TestIssueWaits for the address of a pod that has just started.
func TestIssueWaits(t *testing.T) {
	fresh := roster.Pod{UID: "new", Node: "node-1", Falco: true}
	for name, c := range map[string]struct {
		then func(*world)
		code codes.Code
	}{
		"for its own address": {func(w *world) {
			w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-1", Falco: true, Addresses: addresses("10.1.0.99")})
		}, codes.OK},
		"for the thief's": {func(w *world) {
			w.roster.ApplyPod(roster.Pod{UID: "thief", Node: "node-1", Falco: true, Addresses: addresses("10.1.0.99")})
			w.roster.ApplyPod(roster.Pod{UID: "new", Node: "node-1", Falco: true, Addresses: addresses("10.1.0.98")})
		}, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{Wait: 2 * time.Second, Settle: time.Second})
			w.reviewer.tokens["t"] = Identity{Extra: map[string][]string{extraPodName: {"new"}, extraPodUID: {"new"}, extraNode: {"node-1"}}}
			w.roster.ApplyPod(fresh)
			s := NewTickets(w.Guard, NewReviews(w.reviewer, nil))
			done := make(chan error, 1)
			go func() {
				_, err := s.Issue(request(t.Context(), "10.1.0.99:1", "10.9.9.9:1", true, "authorization", "Bearer t"), nil)
				done <- err
			}()
			w.undecided(t)
			c.then(w)
			if err := <-done; status.Code(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

// TestReviewsPerAddress: one caller cannot use up the rest; behind an address
// that many share are many.
func TestReviewsPerAddress(t *testing.T) {
	node, pod := netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("10.1.0.10")
	r := NewReviews(nil, func(a netip.Addr) bool { return a == node })
	for a, want := range map[netip.Addr]int{node: reviewsPerShared, pod: reviewsPerAddress} {
		n := 0
		for n < 100 && r.enter(a) {
			n++
		}
		if n != want {
			t.Errorf("%d at once from %s, want %d", n, a, want)
		}
		for range n {
			r.leave(a)
		}
	}
	if len(r.from) > 0 {
		t.Errorf("%v is left", r.from)
	}
}

// TestReview: what is asked of the API server, and what of its answer counts.
func TestReview(t *testing.T) {
	good := authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"metawire.dev"},
		User: authenticationv1.UserInfo{Username: "u", UID: "1", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{extraPodUID: {"p"}}},
	}
	for name, c := range map[string]struct {
		change func(*authenticationv1.TokenReviewStatus)
		err    error
		want   bool
	}{
		"good":                   {func(*authenticationv1.TokenReviewStatus) {}, nil, true},
		"not good":               {func(s *authenticationv1.TokenReviewStatus) { s.Authenticated = false }, nil, false},
		"nobody looked for whom": {func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }, nil, false},
		"for somebody else":      {func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"other"} }, nil, false},
		"for others too":         {func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"metawire.dev", "other"} }, nil, false},
		"no answer":              {func(*authenticationv1.TokenReviewStatus) {}, errors.New("no answer"), false},
	} {
		t.Run(name, func(t *testing.T) {
			api := fake.NewClientset()
			api.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
				asked, _ := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
				if asked.Spec.Token != "t" || len(asked.Spec.Audiences) != 1 || asked.Spec.Audiences[0] != "metawire.dev" {
					t.Errorf("asked %+v", asked.Spec)
				}
				answer := asked.DeepCopy()
				answer.Status = good
				c.change(&answer.Status)
				return true, answer, c.err
			})
			who, ok, err := API{api}.Review(t.Context(), "t")
			if ok != c.want || (err != nil) != (c.err != nil) {
				t.Errorf("good: %t, %v", ok, err)
			}
			if ok && (who.User != "u" || who.one(extraPodUID) != "p" || len(who.Groups) != 1) {
				t.Errorf("%+v", who)
			}
		})
	}
}

// TestMayRead asks for the node's stream in the name of who asks.
func TestMayRead(t *testing.T) {
	for name, c := range map[string]struct {
		node, verb            string
		allowed, denied, want bool
	}{
		"allowed":            {node: "node-1", verb: "get", allowed: true, want: true},
		"not allowed":        {node: "node-1", verb: "get"},
		"allowed and denied": {node: "node-1", verb: "get", allowed: true, denied: true},
		"every node":         {node: everyNode, verb: "list", allowed: true, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			api := fake.NewClientset()
			api.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
				asked, _ := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
				want := authorizationv1.ResourceAttributes{Verb: c.verb, Group: "metawire.dev", Resource: "nodes", Subresource: "stream", Name: c.node}
				if asked.Spec.User != "u" || *asked.Spec.ResourceAttributes != want {
					t.Errorf("asked %+v", asked.Spec)
				}
				answer := asked.DeepCopy()
				answer.Status.Allowed, answer.Status.Denied = c.allowed, c.denied
				return true, answer, nil
			})
			if ok, err := (API{api}).MayRead(t.Context(), Identity{User: "u"}, c.node); ok != c.want || err != nil {
				t.Errorf("%t, %v", ok, err)
			}
		})
	}
}

// TestTimes: how long each answer takes with the times that hold in a cluster.
func TestTimes(t *testing.T) {
	for name, c := range map[string]struct {
		from, pod string // pod of the ticket; empty: a bare name
		code      codes.Code
		after     time.Duration
	}{
		"an address that nobody knows": {"172.16.0.9:1", "", codes.Aborted, 10 * time.Second},
		"a pod that nobody knows":      {"10.1.0.10:1", "new", codes.Aborted, 10 * time.Second},
		"another node's pod":           {"10.2.0.10:1", "", codes.PermissionDenied, 10 * time.Second},
		"another node's gateway":       {"10.2.0.1:1", "", codes.PermissionDenied, 10 * time.Second},
		"a stolen ticket":              {"10.2.0.10:1", "falco-1", codes.PermissionDenied, 10 * time.Second},
		"a finished pod's ticket":      {"172.16.0.1:1", "done", codes.PermissionDenied, 0},
		"the node's gateway":           {"10.1.0.1:1", "", codes.OK, 3 * time.Second},
		"a ticket through it":          {"10.1.0.1:1", "falco-1", codes.OK, 3 * time.Second},
		"a ticket from its pod":        {"10.1.0.10:1", "falco-1", codes.OK, 0},
		"its pod":                      {"10.1.0.10:1", "", codes.OK, 0},
		"the node":                     {"192.168.0.1:1", "", codes.OK, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{Wait: 10 * time.Second, Settle: 3 * time.Second})
				sent := "node-1"
				if c.pod != "" {
					sent = w.ticket("node-1", c.pod)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				_, err := w.Authorize(request(ctx, c.from, "10.9.9.9:1", true), sent)
				if took := time.Since(began); status.Code(err) != c.code || took != c.after {
					t.Errorf("%v after %s, want %s after %s", err, took, c.code, c.after)
				}
			})
		})
	}
	if o := New(roster.New(), nil, nil, nil, nil, Options{}).options; o.Wait != 10*time.Second || o.Settle != 3*time.Second {
		t.Errorf("%+v", o)
	}
}

// latent takes its time, as an API server does.
type latent struct{ TokenReviewer }

func (l latent) Review(ctx context.Context, token string) (Identity, bool, error) {
	<-time.After(50 * time.Millisecond)
	return l.TokenReviewer.Review(ctx, token)
}

// TestManyFalcosAtOnce: one of two replicas gives 2,500 pods that start together
// their tickets before their init containers give up, after 20 s.
func TestManyFalcosAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Wait: 10 * time.Second, Settle: 3 * time.Second})
		s := NewTickets(w.Guard, NewReviews(latent{w.reviewer}, nil))
		address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)}) }
		const falcos = 2500
		for i := range falcos {
			uid := fmt.Sprint("falco-of-", i)
			w.roster.ApplyPod(roster.Pod{UID: uid, Node: "node-1", Falco: true, Addresses: []netip.Addr{address(i)}})
			w.reviewer.tokens[uid] = Identity{Extra: map[string][]string{extraPodName: {uid}, extraPodUID: {uid}, extraNode: {"node-1"}}}
		}
		began := time.Now()
		var all sync.WaitGroup
		for i := range falcos {
			ctx := request(t.Context(), netip.AddrPortFrom(address(i), 1).String(), "10.9.9.9:1", true, "authorization", fmt.Sprint("Bearer falco-of-", i))
			all.Go(func() {
				for wait := 250 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) { // as they do
					if _, err := s.Issue(ctx, nil); err == nil {
						break
					}
					<-time.After(wait)
				}
				if took := time.Since(began); took > 18*time.Second {
					t.Errorf("the %dth has its ticket after %s", i, took)
				}
			})
		}
		all.Wait()
	})
}
