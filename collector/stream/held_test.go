package stream_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	metawire "github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/stream"
)

// authorizer answers when it is told to.
type authorizer struct {
	asked   chan string
	answers chan error
	revoked chan struct{}
}

func newAuthorizer() *authorizer {
	return &authorizer{make(chan string, 100), make(chan error, 100), make(chan struct{})}
}

func (a *authorizer) Authorize(ctx context.Context, nodeName string) (stream.Leave, error) {
	a.asked <- nodeName
	select {
	case err := <-a.answers:
		return stream.Leave{Node: "node-1", Revoked: a.revoked, By: "ticket", Pod: "p"}, err
	case <-ctx.Done():
		return stream.Leave{}, status.FromContextError(ctx.Err()).Err()
	}
}

// TestAuthorizer: it is asked what was sent, and says which node is served and
// for how long.
func TestAuthorizer(t *testing.T) {
	a := newAuthorizer()
	s := serve(t, stream.Options{Authorizer: a}, nil)
	s.hub.Apply(pod("node-1", "p"))
	sub := s.watch(t, "node-1/pod/mac", "Pod")
	if sent := <-a.asked; sent != "node-1/pod/mac" {
		t.Errorf("asked for %q", sent)
	}
	a.answers <- nil
	sub.expect(t, "Create Pod p")
	close(a.revoked)
	if events, code := sub.ending(); len(events) > 0 || code != codes.Aborted {
		t.Errorf("ended with %s after %d events", code, len(events))
	}
	refused := s.watch(t, "node-1", "Pod")
	<-a.asked
	a.answers <- status.Error(codes.PermissionDenied, "no")
	if events, code := refused.ending(); len(events) > 0 || code != codes.PermissionDenied {
		t.Errorf("ended with %s after %d events", code, len(events))
	}
	if n := s.metric(t, "metawire_stream_endings_total", "refused"); n != 2 {
		t.Errorf("%v are counted, want 2", n)
	}
	if s.logs.contain("pod/mac") {
		t.Error("the ticket is in the log")
	}
}

// TestDrainedWhileUndecided: the drain does not wait for the authorizer.
func TestDrainedWhileUndecided(t *testing.T) {
	a := newAuthorizer()
	s := serve(t, stream.Options{Authorizer: a, Stop: patience}, nil)
	sub := s.watch(t, "node-1", "Pod")
	<-a.asked
	s.drain()
	if _, code := sub.ending(); code != codes.Aborted {
		t.Errorf("ended with %s", code)
	}
}

// TestHeldStreamsAreBounded: anybody can open a stream that is not served. One
// too many is told to come back, as the plugin does after a second.
func TestHeldStreamsAreBounded(t *testing.T) {
	const most, each = 8, 2 // each: of one address, which all of a test's are
	for name, c := range map[string]struct {
		node   string
		synced <-chan struct{}
	}{
		"unnamed":         {"", nil},
		"a long name":     {strings.Repeat("x", 254), nil},
		"before the sync": {"node-1", make(chan struct{})},
		"undecided":       {"node-1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthorizer()
			s := serve(t, stream.Options{Authorizer: a, Unnamed: most, Undecided: most}, c.synced)
			var open []*subscription
			for range each {
				open = append(open, s.watch(t, c.node, "Pod"))
			}
			eventually(t, "they are open", func() bool { return s.logs.count("msg=subscribed") == each })
			if name == "undecided" {
				<-a.asked
				<-a.asked
			}
			eventually(t, "one too many is sent away", func() bool {
				_, code := s.watch(t, c.node, "Pod").ending()
				return code == codes.ResourceExhausted
			})
			open[0].cancel()
			eventually(t, "its place is free", func() bool { return s.metric(t, "metawire_stream_endings_total", "client_gone") > 0 })
			before := s.logs.count("msg=subscribed")
			s.watch(t, c.node, "Pod")
			eventually(t, "it is taken", func() bool { return s.logs.count("msg=subscribed") > before })
			if _, code := s.watch(t, c.node, "Pod").ending(); code != codes.ResourceExhausted {
				t.Errorf("one too many ended with %s: the place was not taken", code)
			}
		})
	}
}

// TestServedStreamsAreNotHeld: they take no places of those who wait.
func TestServedStreamsAreNotHeld(t *testing.T) {
	a := newAuthorizer()
	s := serve(t, stream.Options{Authorizer: a, Undecided: 4}, nil)
	s.hub.Apply(pod("node-1", "p"))
	for range 10 {
		a.answers <- nil
		s.watch(t, "node-1", "Pod").expect(t, "Create Pod p")
	}
}

// TestUnnamedAreLoggedSparingly: a line for each could fill a disk.
func TestUnnamedAreLoggedSparingly(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	c := conn(t, s.address)
	const streams = 50
	for range streams {
		watch(t, c, "", "Pod")
	}
	eventually(t, "all are counted", func() bool { return s.metric(t, "metawire_stream_unnamed_subscribers_total") == streams })
	if n := s.logs.count("names no node"); n < 1 || n > 15 {
		t.Errorf("%d lines for %d subscribers", n, streams)
	}
}

// TestLargeRequestsAreRefused before they take memory.
func TestLargeRequestsAreRefused(t *testing.T) {
	s := serve(t, stream.Options{}, nil)
	s.hub.Apply(pod("node-1", "p"))
	for name, c := range map[string]struct {
		token, value int // bytes
		served       bool
	}{
		"a token":          {16 << 10, 0, true},
		"a large header":   {64 << 10, 0, false},
		"a large selector": {0, 17 << 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.Repeat("x", c.token))
			sub, err := metawire.NewMetadataClient(conn(t, s.address)).Watch(ctx, &metawire.Selector{
				NodeName: "node-1", ResourceKinds: map[string]string{"Pod": strings.Repeat("x", c.value)},
			})
			if err == nil {
				_, err = sub.Recv()
			}
			if (err == nil) != c.served || status.Code(err) == codes.DeadlineExceeded {
				t.Errorf("%v", err)
			}
		})
	}
}
