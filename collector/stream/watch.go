package stream

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
)

// kindAliases maps what the plugin asks for to what it means: its
// ReplicaController is a typing error for ReplicationController.
func kindAliases() map[string]relation.Kind {
	return map[string]relation.Kind{"ReplicaController": relation.ReplicationController}
}

// What a subscriber may send as nodeName: a node's name, within Kubernetes'
// limit, or a ticket, which begins with one and is never logged whole.
const (
	maxNodeName = 253
	maxSent     = maxNodeName + 256
)

// How a stream ended: the values of the metric's label reason. The plugin comes
// back a second after ABORTED. It never comes back after OK, and after
// UNAVAILABLE its delay doubles for good, so a stream ends with neither.
const (
	endGone    = "client_gone"
	endSend    = "send_failed"
	endDrained = "drained"
	endMaxAge  = "max_age"
	endRefused = "refused" // not authorized, at first or no longer
	endBusy    = "busy"    // too many are open that are not served
)

// Watch implements metadata.MetadataServer. It returns when the subscriber is
// gone, the stream is too old or the server drains, never with nil.
func (s *Server) Watch(sel *metadata.Selector, stream grpc.ServerStreamingServer[metadata.Event]) error {
	return s.serve(sel, stream, false)
}

// serve is Watch; plaintext says that it came by the second listener.
func (s *Server) serve(sel *metadata.Selector, stream grpc.ServerStreamingServer[metadata.Event], plaintext bool) error {
	s.streams.Add(1)
	defer s.streams.Add(-1)
	began := time.Now()
	named, _, _ := strings.Cut(sel.GetNodeName(), "/")
	log := s.log.With("node", named[:min(len(named), maxNodeName)], "peer", peerOf(stream.Context()))
	log.Debug("subscribed")
	reason, err := s.watch(sel, stream, plaintext, log)
	s.metrics.endings.WithLabelValues(reason).Inc()
	log.Debug("stream ended", "reason", reason, "after", time.Since(began).Round(time.Millisecond), "status", err)
	return err
}

func (s *Server) watch(sel *metadata.Selector, stream grpc.ServerStreamingServer[metadata.Event], plaintext bool, log *slog.Logger) (string, error) {
	e := s.newEnd(stream.Context())
	defer e.stop()
	sent := sel.GetNodeName()
	named, _, _ := strings.Cut(sent, "/")
	if named == "" || len(named) > maxNodeName || len(sent) > maxSent {
		// Its variable is not set. An error would double the plugin's delay
		// for good: keep the stream open and silent.
		s.metrics.unnamed.Inc()
		if s.told.Allow() {
			log.Warn("subscriber names no node and gets nothing: is nodeName set in its plugin's configuration?")
		}
		leave, err := s.unnamed.enter(stream.Context())
		if err != nil {
			return endBusy, err
		}
		defer leave()
		return e.wait(nil)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel() // what was granted ends with the stream
	leave, reason, err := s.admit(ctx, cancel, e, sent, named)
	if err != nil {
		return reason, err
	}
	sub := s.hub.Subscribe(leave.Node, selectedKinds(sel))
	defer sub.Close()
	told := s.open.enter(sub, leave, addressOf(stream.Context()), plaintext)
	defer s.open.leave(told)
	p := s.newPacer()
	for {
		msgs := sub.Take(p.buf[:0], p.chunk)
		if len(msgs) > 0 {
			if err := p.send(stream, msgs, s.metrics); err != nil {
				if stream.Context().Err() != nil {
					return endGone, status.FromContextError(stream.Context().Err()).Err()
				}
				return endSend, err
			}
			told.sent.Add(int64(len(msgs)))
		}
		more := sub.Wake()
		if len(msgs) == p.chunk {
			more = s.always
		}
		if reason, err := e.wait(more); err != nil {
			return reason, err
		}
	}
}

// admit waits for the first sync, and then for the authorizer. Few may wait.
func (s *Server) admit(ctx context.Context, cancel func(), e *end, sent, named string) (l Leave, reason string, err error) {
	select {
	case <-s.synced:
		if s.options.Authorizer == nil {
			return Leave{Node: named}, "", nil
		}
	default:
	}
	leave, err := s.undecided.enter(ctx)
	if err != nil {
		if s.told.Allow() {
			s.log.Warn("too many subscribers wait for an answer: they are told to come back", "peer", peerOf(ctx))
		}
		return Leave{}, endBusy, err
	}
	defer leave()
	if reason, err := e.wait(s.synced); err != nil {
		return Leave{}, reason, err
	}
	return s.authorize(ctx, cancel, e, sent, named)
}

// authorize returns which node the subscriber may read. It blocks until the
// authorizer has answered or the stream must end.
func (s *Server) authorize(ctx context.Context, cancel func(), e *end, sent, named string) (l Leave, reason string, err error) {
	if s.options.Authorizer == nil {
		return Leave{Node: named}, "", nil
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		l, err = s.options.Authorizer.Authorize(ctx, sent)
	}()
	if reason, ending := e.wait(answered); ending != nil {
		cancel()
		<-answered
		return Leave{}, reason, ending
	}
	e.revoked = l.Revoked
	return l, endRefused, err
}

// selectedKinds returns the kinds that the selector's keys name; unknown ones
// are left out.
func selectedKinds(sel *metadata.Selector) []relation.Kind {
	known, aliases := relation.Kinds(), kindAliases()
	var kinds []relation.Kind
	for _, name := range slices.Sorted(maps.Keys(sel.GetResourceKinds())) {
		k := relation.Kind(name)
		if alias, ok := aliases[name]; ok {
			k = alias
		}
		if slices.Contains(known, k) && !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// pacer sends one subscriber no more than it may be sent.
type pacer struct {
	limiter *rate.Limiter
	chunk   int
	buf     []fanout.Message
	frame   frame
}

// maxChunk bounds what is decided before it is sent, and so what is held for a
// subscriber that stops reading: 32 events are less than 64 KiB.
const maxChunk = 32

func (s *Server) newPacer() *pacer {
	// A chunk takes at most 20 ms of the rate, so that no stream's end waits
	// for its pace.
	chunk := max(1, min(maxChunk, s.options.Burst, int(s.options.Rate/50)))
	return &pacer{
		limiter: rate.NewLimiter(rate.Limit(s.options.Rate), s.options.Burst),
		chunk:   chunk,
		buf:     make([]fanout.Message, 0, chunk),
	}
}

// send blocks while the subscriber is ahead of its pace or does not read.
func (p *pacer) send(stream grpc.ServerStreamingServer[metadata.Event], msgs []fanout.Message, m *Metrics) error {
	if err := p.limiter.WaitN(stream.Context(), len(msgs)); err != nil {
		return err
	}
	for i := range msgs {
		p.frame.reason, p.frame.event = msgs[i].Reason, msgs[i].Event
		if err := stream.SendMsg(&p.frame); err != nil {
			return err
		}
	}
	m.sent(msgs)
	clear(msgs) // an event must not outlive its object here
	return nil
}

// end waits for whatever ends a stream.
type end struct {
	ctx      context.Context //nolint:containedctx // lives as long as the stream's handler
	server   *Server
	draining <-chan struct{} // nil once it was seen
	timer    *time.Timer     // nil: never
	reason   string          // why the timer runs
	revoked  <-chan struct{} // nil: never
}

func (s *Server) newEnd(ctx context.Context) *end {
	e := &end{ctx: ctx, server: s, draining: s.draining, reason: endMaxAge}
	if half := s.options.MaxAge / 2; half > 0 {
		e.timer = time.NewTimer(half + rand.N(half)) //nolint:gosec // spreads load, no secret
	}
	return e
}

func (e *end) stop() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

// wait blocks until something comes from more, or until the stream must end:
// then it returns the reason and the status.
func (e *end) wait(more <-chan struct{}) (string, error) {
	for {
		var timer <-chan time.Time
		if e.timer != nil {
			timer = e.timer.C
		}
		select {
		case <-more:
			return "", nil
		case <-e.ctx.Done():
			return endGone, status.FromContextError(e.ctx.Err()).Err()
		case <-e.draining:
			e.drain()
		case <-e.revoked:
			return endRefused, status.Error(codes.Aborted, "reconnect: what authorized this stream no longer stands")
		case <-timer:
			return e.reason, status.Error(codes.Aborted, "reconnect: this replica ends the stream ("+e.reason+")")
		}
	}
}

// drain sets the stream's end within the drain's spread.
func (e *end) drain() {
	e.draining, e.reason = nil, endDrained
	e.stop()
	e.timer = time.NewTimer(rand.N(max(time.Until(e.server.drainedBy), 1))) //nolint:gosec // spreads load, no secret
}

func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
