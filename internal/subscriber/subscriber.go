// Package subscriber is the client side of the stream, for people and for
// probes: it subscribes as Falco's plugin does, and says why when it cannot.
// It keeps nothing of what it receives.
package subscriber

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/metadata"
)

// ErrRefused is in the error when the collector refuses this subscriber.
var ErrRefused = errors.New("refused by the collector")

// Options says what to subscribe to and how patiently.
type Options struct {
	Target Target
	// Node is the name of the node whose metadata is wanted.
	Node string
	// Kinds are the wanted kinds, as Kubernetes writes them. None of them gives
	// a silent stream.
	Kinds []string
	// ConnectTimeout is how long one attempt to connect may take, default 8s;
	// finding out why it failed may take 2s more.
	ConnectTimeout time.Duration
	// Patience is how long a first connection is tried for; zero is one attempt.
	Patience time.Duration
	// ReconnectPatience is how long a connection is tried for once there was
	// one, default 30s.
	ReconnectPatience time.Duration
	// Retry is the pause before the next attempt, default 1s, which is the
	// plugin's.
	Retry time.Duration
}

// Observer is told what happens, in order, by the goroutine that called Run.
type Observer interface {
	// Connected is told each time that a connection is up and the selector on
	// its way, with the time that this took.
	Connected(took time.Duration)
	// Event is told every event. An error ends the subscription.
	Event(*metadata.Event) error
	// Retrying is told why there is no stream, and when the next attempt comes.
	Retrying(reason error, pause time.Duration)
}

// Run subscribes and blocks until ctx ends, which is no error, or until going
// on is pointless: the target makes no sense, the collector refused
// (ErrRefused), it ended the stream in a way that asks for no further attempt,
// no connection came about for as long as the options allow (one of the Err
// values of this package says why), or the observer returned an error. A stream that ends otherwise is opened anew, over
// a new connection, as the plugin does.
func Run(ctx context.Context, o Options, obs Observer) error {
	if o.ReconnectPatience == 0 {
		o.ReconnectPatience = 30 * time.Second
	}
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 8 * time.Second
	}
	dial, err := o.Target.dialer(o.ConnectTimeout)
	if err != nil {
		return err
	}
	until := time.Now().Add(o.Patience)
	for {
		end := o.attempt(ctx, dial, obs)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller wanted it to end
		}
		if end.connected {
			until = time.Now().Add(o.ReconnectPatience)
		}
		if end.final || !end.connected && !time.Now().Before(until) {
			return end.err
		}
		obs.Retrying(end.err, o.Retry)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.Retry):
		}
	}
}

// ending is how an attempt ended.
type ending struct {
	err       error
	connected bool // there was a connection
	final     bool // another attempt is pointless
}

// attempt connects, subscribes and receives until the stream ends.
func (o Options) attempt(ctx context.Context, dial *dialer, obs Observer) ending {
	began := time.Now()
	stream, hangUp, err := dial.subscribe(ctx, &metadata.Selector{NodeName: o.Node, ResourceKinds: wanted(o.Kinds)})
	if err != nil {
		return ending{err: err}
	}
	defer hangUp()
	obs.Connected(time.Since(began))
	for {
		e, err := stream.Recv()
		if err != nil {
			return o.ended(err)
		}
		if err := obs.Event(e); err != nil {
			return ending{err: err, connected: true, final: true}
		}
	}
}

// ended judges the error that a stream ended with.
func (o Options) ended(err error) ending {
	end := ending{connected: true}
	s := status.Convert(err)
	switch {
	case errors.Is(err, io.EOF):
		// The plugin would never come back: this must not go unnoticed.
		end.err, end.final = errors.New("the collector ended the stream with OK, which it must never do"), true
	case s.Code() == codes.PermissionDenied, s.Code() == codes.Unauthenticated:
		end.err, end.final = fmt.Errorf("node %q: %w: %s: %q", o.Node, ErrRefused, s.Code(), s.Message()), true
	case s.Code() == codes.Unimplemented, s.Code() == codes.InvalidArgument, s.Code() == codes.FailedPrecondition:
		end.err, end.final = fmt.Errorf("watch node %q at %s: %w", o.Node, o.Target.Addr, err), true
	default:
		end.err = fmt.Errorf("stream ended: %s: %q", s.Code(), s.Message())
	}
	return end
}

func wanted(kinds []string) map[string]string {
	m := make(map[string]string, len(kinds))
	for _, k := range kinds {
		m[k] = "true"
	}
	return m
}
