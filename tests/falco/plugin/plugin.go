// Package plugin is a subscriber that does what Falco's k8smeta plugin does: it
// keeps its table when a stream ends, forgets an entry only when it is told to,
// and comes back with the plugin's delays. It holds every event against the
// contract on the way.
package plugin

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metawire/metawire/collector/metadata"
)

// The plugin's delays before it connects again: firstDelay after most statuses;
// after some it doubles from minBackoff to maxBackoff and is never reset.
const (
	firstDelay = time.Second
	minBackoff = 2 * time.Second
	maxBackoff = 2 * time.Minute
)

// Options say what to subscribe to.
type Options struct {
	Node  string
	Kinds []string
	// Target returns the address for the next attempt, as a Service would.
	Target func() string
	// CA verifies the server; nil is plaintext. ServerName is the name that its
	// certificate must carry, default the target's host.
	CA         *x509.CertPool
	ServerName string
	// Token is a bearer token to present, which the plugin itself has none of.
	Token credentials.PerRPCCredentials
	// Seen is told what arrives, and Ended how a stream ended, if they are set.
	Seen  func(reason, kind, name string)
	Ended func(End)
}

// Kinds are those that the plugin asks for, with its typing error.
func Kinds() []string {
	return []string{"Pod", "Namespace", "Deployment", "Service", "ReplicaSet", "ReplicaController"}
}

// End is how a stream ended.
type End struct {
	At   time.Time
	Code codes.Code
}

// Client is a running subscriber. Its methods may be called from any goroutine.
type Client struct {
	options Options
	cancel  context.CancelFunc
	done    chan struct{}

	mu       sync.Mutex
	table    map[string]*metadata.Event // kept over streams
	told     map[string]*metadata.Event // in this stream
	events   int
	attempts []time.Time
	ends     []End
	faults   []string
}

// Start subscribes until Stop.
func Start(o Options) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{options: o, cancel: cancel, done: make(chan struct{}), table: map[string]*metadata.Event{}}
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
	return c
}

// Stop ends the subscription and waits for that.
func (c *Client) Stop() {
	c.cancel()
	<-c.done
}

// Table returns what the plugin would know now, by UID, without reasons.
func (c *Client) Table() map[string]*metadata.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.table)
}

// Events returns how many events came so far.
func (c *Client) Events() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events
}

// Attempts returns when it connected, or tried to.
func (c *Client) Attempts() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.attempts)
}

// Ends returns how its streams ended so far.
func (c *Client) Ends() []End {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ends)
}

// Faults returns what it received against the contract.
func (c *Client) Faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.faults)
}

func (c *Client) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		c.mu.Lock()
		c.attempts = append(c.attempts, time.Now())
		c.told = map[string]*metadata.Event{}
		c.mu.Unlock()
		err := c.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		c.ended(err)
		delay := firstDelay
		switch status.Code(err) {
		case codes.Unavailable, codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition:
			delay, backoff = backoff, min(2*backoff, maxBackoff)
		}
		if errors.Is(err, io.EOF) {
			return // as the plugin: it never comes back
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}

func (c *Client) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	code := status.Code(err)
	if errors.Is(err, io.EOF) {
		code = codes.OK
		c.faults = append(c.faults, "the stream ended with OK")
	}
	end := End{time.Now(), code}
	c.ends = append(c.ends, end)
	if c.options.Ended != nil {
		c.options.Ended(end)
	}
}

// stream subscribes over a channel of its own and receives to the end.
func (c *Client) stream(ctx context.Context) error {
	creds := insecure.NewCredentials()
	if c.options.CA != nil {
		creds = credentials.NewClientTLSFromCert(c.options.CA, c.options.ServerName)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithNoProxy()}
	if c.options.Token != nil {
		options = append(options, grpc.WithPerRPCCredentials(c.options.Token))
	}
	conn, err := grpc.NewClient(c.options.Target(), options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	kinds := map[string]string{}
	for _, k := range c.options.Kinds {
		kinds[k] = "true"
	}
	s, err := metadata.NewMetadataClient(conn).Watch(ctx, &metadata.Selector{NodeName: c.options.Node, ResourceKinds: kinds})
	if err != nil {
		return err
	}
	for {
		e, err := s.Recv()
		if err != nil {
			return err
		}
		c.receive(e)
	}
}

// receive does with an event what the plugin does.
func (c *Client) receive(e *metadata.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events++
	if c.options.Seen != nil {
		c.options.Seen(e.Reason, e.Kind, c.name(e))
	}
	if fault := c.check(e); fault != "" {
		c.faults = append(c.faults, fmt.Sprintf("%s: %v", fault, e))
	}
	reason := e.Reason
	e.Reason = ""
	if reason == metadata.Delete {
		delete(c.table, e.Uid)
		delete(c.told, e.Uid)
		return
	}
	c.table[e.Uid], c.told[e.Uid] = e, e
}

// name is the object's, for people; of a Delete that of the entry it removes.
func (c *Client) name(e *metadata.Event) string {
	if e.Meta == nil {
		if e = c.table[e.Uid]; e == nil {
			return ""
		}
	}
	var meta struct{ Namespace, Name string }
	if err := json.Unmarshal([]byte(e.GetMeta()), &meta); err != nil {
		return err.Error()
	}
	return path.Join(meta.Namespace, meta.Name)
}

// State is what the stand-in for Falco shows of its plugin.
type State struct {
	// Loaded says that the plugin is configured and was found; without it
	// nothing below is set.
	Loaded   bool
	NodeName string // as it is sent
	Library  string // what its file says
	TLS      bool
	Events   int
	Attempts []time.Time
	Ends     []End
	Faults   []string
	Table    map[string]*metadata.Event
}

// Tell fills in what the client knows.
func (c *Client) Tell(s *State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.TLS, s.Events = c.options.CA != nil, c.events
	s.Attempts, s.Ends, s.Faults = slices.Clone(c.attempts), slices.Clone(c.ends), slices.Clone(c.faults)
	s.Table = maps.Clone(c.table)
}

// check returns what is wrong with an event, if anything.
func (c *Client) check(e *metadata.Event) string {
	if e.Uid == "" || e.Kind == "" {
		return "no uid or no kind"
	}
	last := c.told[e.Uid]
	switch e.Reason {
	case metadata.Delete:
		if e.Meta != nil || e.Status != nil || e.Refs != nil {
			return "a Delete that carries more than uid and kind"
		}
		return ""
	case metadata.Create:
		if last != nil {
			return "a Create of what this stream has"
		}
	case metadata.Update:
		if last == nil {
			return "an Update of what this stream has not"
		}
		now := proto.CloneOf(e)
		now.Reason = ""
		if proto.Equal(last, now) {
			return "an Update without a change"
		}
	default:
		return "an unknown reason"
	}
	if e.Meta == nil || (e.Kind == "Pod") != (e.Status != nil && e.Refs != nil) {
		return "not the whole object"
	}
	return ""
}
