package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/internal/subscriber"
	"github.com/metawire/metawire/internal/version"
)

func newStream() *cobra.Command {
	var s stream
	var timeout time.Duration
	var tokenFile string
	c := &cobra.Command{
		Use:   "stream --addr HOST:PORT --node NAME",
		Short: "Subscribe to a node and require its metadata to arrive",
		Long: `Subscribe to a node as Falco's plugin does. Passes once a Namespace and a Pod
of the node have arrived, which must be so for the node that the probe itself
runs on. Tries to connect until the timeout.`,
		Example: "  probe stream --addr metawire-collector.metawire.svc:45000 --node worker-1",
		Args:    cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&s.Target.Addr, "addr", "", "`host:port` of the collector's stream (required)")
	f.StringVar(&s.Node, "node", "", "`name` of the node (required)")
	f.StringVar(&s.podUID, "pod-uid", "", "`UID` of a pod that must be among those that arrive, such as the probe's own")
	f.StringVar(&s.Target.CA, "tls-ca", "", "PEM `file` with the authorities to accept; without it the connection is plaintext")
	f.StringVar(&s.Target.ServerName, "tls-server-name", "", "`name` that the certificate must carry (default: the host of --addr)")
	f.StringVar(&tokenFile, "token-file", "", "`file` with a bearer token to present; needs --tls-ca")
	f.DurationVar(&timeout, "timeout", 30*time.Second, "fail if it has not passed by then")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if s.Target.Addr == "" || s.Node == "" {
			return errors.New("--addr and --node are required and must not be empty")
		}
		if tokenFile != "" {
			s.Target.Token = subscriber.TokenFile(tokenFile)
		}
		s.out, s.Patience, s.ReconnectPatience = c.OutOrStdout(), timeout, timeout
		return s.run(c.Context(), timeout)
	}
	return c
}

// stream is one probe of the stream.
type stream struct {
	subscriber.Options
	podUID string
	out    io.Writer

	pass      context.CancelFunc
	passed    bool
	began     time.Time
	connected bool
	received  map[string]int // events by kind
	pod       bool           // the wanted one has arrived
	last      error          // why there was no stream last
}

// run blocks until the probe passes, which is no error, or ctx or the timeout
// ends it.
func (s *stream) run(ctx context.Context, timeout time.Duration) error {
	for _, k := range relation.Kinds() {
		s.Kinds = append(s.Kinds, string(k))
	}
	s.received = map[string]int{}
	s.began = time.Now()
	fmt.Fprintf(s.out, "probe %s: node %q at %s, at most %s\n", version.Version, s.Node, s.Target.Addr, timeout)
	watching, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s.pass = cancel
	if err := subscriber.Run(watching, s.Options, s); err != nil {
		return err
	}
	if s.passed {
		fmt.Fprintf(s.out, "PASS: received %s in %s\n", s.counts(), time.Since(s.began).Round(time.Millisecond))
		return nil
	}
	return s.failure(ctx, timeout)
}

// failure says why the probe has not passed when it ended.
func (s *stream) failure(ctx context.Context, timeout time.Duration) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted, received %s", s.counts())
	case !s.connected && s.last == nil:
		return fmt.Errorf("connect to %s: no answer within %s", s.Target.Addr, timeout)
	case !s.connected:
		return fmt.Errorf("not connected within %s: %w", timeout, s.last)
	}
	err := fmt.Errorf("received %s within %s; wanted a Namespace and %s of node %q", s.counts(), timeout, s.wantedPod(), s.Node)
	if s.last != nil {
		err = fmt.Errorf("%w; last: %w", err, s.last)
	}
	return err
}

// Connected implements subscriber.Observer.
func (s *stream) Connected(took time.Duration) {
	s.connected = true
	fmt.Fprintf(s.out, "connected in %s\n", took.Round(100*time.Microsecond))
}

// Retrying implements subscriber.Observer.
func (s *stream) Retrying(reason error, pause time.Duration) {
	s.last = reason
	fmt.Fprintf(s.out, "%v; again in %s\n", reason, pause)
}

// Event implements subscriber.Observer. It ends the subscription when all that
// must arrive has.
func (s *stream) Event(e *metadata.Event) error {
	if e.GetReason() == metadata.Delete { // replayed, of an object that is no more
		return nil
	}
	s.received[e.GetKind()]++
	if e.GetKind() == string(relation.Pod) && (s.podUID == "" || s.podUID == e.GetUid()) {
		s.pod = true
	}
	if s.pod && s.received[string(relation.Namespace)] > 0 && !s.passed {
		s.passed = true
		s.pass()
	}
	return nil
}

func (s *stream) wantedPod() string {
	if s.podUID == "" {
		return "a Pod"
	}
	return "Pod " + s.podUID
}

// counts says what has arrived so far.
func (s *stream) counts() string {
	var counts []string
	for kind, n := range s.received {
		counts = append(counts, fmt.Sprintf("%d %s", n, kind))
	}
	if len(counts) == 0 {
		return "nothing"
	}
	slices.Sort(counts)
	return strings.Join(counts, ", ")
}
