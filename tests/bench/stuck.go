package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/fields"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/collector/metadata"
)

// stuckNode is the node whose additional subscriber stops reading.
const stuckNode = 0

// stuckWindow is the smallest flow control window that gRPC has.
const stuckWindow = 64 << 10

// decided is how many events the collector decides for a subscriber before it
// sends them; they are held besides what is pending.
const decided = 32

// arrivals are sorted latencies of the same changes by two ways.
type arrivals struct{ watched, delivered latencies }

func (a arrivals) and(b arrivals) arrivals {
	both := arrivals{slices.Concat(a.watched, b.watched), slices.Concat(a.delivered, b.delivered)}
	slices.Sort(both.watched)
	slices.Sort(both.delivered)
	return both
}

func (a arrivals) String() string {
	return fmt.Sprintf("%s, plain watch %s", ms(a.delivered.quantile(0.99)), ms(a.watched.quantile(0.99)))
}

// tail returns the p99 in units of the plain watch's at the same time, so that
// it does not tell how busy the machine was.
func (a arrivals) tail() float64 { return ratio(a.delivered.quantile(0.99), a.watched.quantile(0.99)) }

// stuck measures what the other nodes' subscribers notice of one that stops
// reading while its own node keeps changing. The time without is halved, before
// and after, so that a machine that gets slower or faster cancels out.
func (b *bench) stuck(ctx context.Context) error {
	l, err := b.stage.listen(ctx, b.collector)
	if err != nil {
		return err
	}
	defer l.close()
	s, err := subscribeStuck(ctx, b.collector.stream)
	if err != nil {
		return err
	}
	defer s.close()
	stop, ended := make(chan struct{}), make(chan error, 1)
	pods := b.stage.podsOf(func(node int) bool { return node == stuckNode })
	go func() { ended <- noise(ctx, stop, b.stage.client, pods, b.stuckRate) }()
	without, with, backlog, err := b.stuckPhases(ctx, l, s)
	close(stop)
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	return b.judgeStuck(ctx, s, without, with, backlog)
}

// stuckPhases returns the latencies of the other nodes without and with one
// subscriber that is stuck, and how many objects were pending for it.
func (b *bench) stuckPhases(ctx context.Context, l *listeners, s *stuckSubscriber) (without, with arrivals, backlog int64, err error) {
	others := shuffled(b.stage.podsOf(func(node int) bool { return node != stuckNode }))
	measure := func(d time.Duration, what string) (a arrivals) {
		if err != nil {
			return a
		}
		var book *ledger
		// All changes together come at the rate at which none is stuck.
		if book, err = b.stage.measure(ctx, l, others, b.rate-b.stuckRate, d); err != nil {
			err = fmt.Errorf("measure while one subscriber %s: %w", what, err)
			return a
		}
		a.watched, a.delivered = book.collect()
		b.log.say("one subscriber %s: the others' p99 %s", what, a)
		return a
	}
	before := measure(b.stuckFor/2, "reads")
	s.freeze()
	defer s.thaw()
	if err == nil {
		_, err = b.untilStuck(ctx)
	}
	with = measure(b.stuckFor, "is stuck")
	if err == nil {
		backlog, err = b.untilStuck(ctx)
	}
	s.thaw()
	after := measure(b.stuckFor/2, "reads again")
	return before.and(after), with, backlog, err
}

// untilStuck blocks until the windows and buffers on the way to the subscriber
// are full, so that all pods of its node are pending for it: no other has as
// many. It returns how many objects are pending.
func (b *bench) untilStuck(ctx context.Context) (backlog int64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	err = b.collector.until(ctx, func(ctx context.Context) error {
		sample, err := b.collector.scrape(ctx)
		if err != nil {
			return err
		}
		if backlog = int64(sample.sum("metawire_stream_pending_objects_max")); backlog < int64(b.stage.pods) {
			return fmt.Errorf("%d objects are pending for the subscriber that does not read, want %d", backlog, b.stage.pods)
		}
		return nil
	})
	return backlog, err
}

func (b *bench) judgeStuck(ctx context.Context, s *stuckSubscriber, without, with arrivals, backlog int64) error {
	b.report.judge(goalOthers, with.String(), fmt.Sprintf("all read %s", without), ratio(with.tail(), without.tail()))
	held := float64((backlog+decided)*b.meanEvent) / (1 << 10)
	b.report.judge(goalHeld, fmt.Sprintf("%d objects pending", backlog), fmt.Sprintf("with %d decided, at %d B each", decided, b.meanEvent), held)
	wrong, err := s.settle(ctx, b)
	if err != nil {
		return err
	}
	value := "equals the API's"
	if len(wrong) > 0 {
		value = strings.Join(wrong[:min(len(wrong), 3)], ", ")
	}
	b.report.judge(goalThawed, value, fmt.Sprintf("%d objects", b.stage.perNode()), float64(len(wrong)))
	return nil
}

// stuckSubscriber is a subscriber that can stop reading. It keeps what Falco's
// plugin would: the last event of each UID until its Delete.
type stuckSubscriber struct {
	fleet *fleet
	gate  sync.Mutex // held: nothing is read

	mu    sync.Mutex
	table map[string]*metadata.Event
	bad   error
	froze bool
}

func subscribeStuck(ctx context.Context, address string) (*stuckSubscriber, error) {
	f, err := dialFleet(ctx, address, 1, stuckWindow)
	if err != nil {
		return nil, err
	}
	s := &stuckSubscriber{fleet: f, table: map[string]*metadata.Event{}}
	f.watch(ctx, []string{nodeName(stuckNode)}, func(_ int, raw []byte) {
		s.gate.Lock()
		defer s.gate.Unlock()
		s.take(raw)
	})
	return s, nil
}

func (s *stuckSubscriber) take(raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &metadata.Event{}
	if err := proto.Unmarshal(raw, e); err != nil {
		s.bad = fmt.Errorf("decode an event: %w", err)
		return
	}
	if e.GetReason() == metadata.Delete {
		delete(s.table, e.GetUid())
		return
	}
	s.table[e.GetUid()] = e
}

func (s *stuckSubscriber) freeze() {
	if !s.froze {
		s.gate.Lock()
		s.froze = true
	}
}

func (s *stuckSubscriber) thaw() {
	if s.froze {
		s.gate.Unlock()
		s.froze = false
	}
}

func (s *stuckSubscriber) close() {
	s.thaw()
	s.fleet.close()
}

// settle blocks until the table is right, at most arrivalTimeout; then it
// returns what is wrong.
func (s *stuckSubscriber) settle(ctx context.Context, b *bench) (wrong []string, err error) {
	pods, err := b.stage.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", nodeName(stuckNode)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", nodeName(stuckNode), err)
	}
	timeout, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	for {
		if wrong, err = s.compare(pods.Items, b.stage.uidsOf(stuckNode)); err != nil || len(wrong) == 0 {
			return nil, err
		}
		if pause(timeout, pollInterval) != nil {
			return wrong, ctx.Err()
		}
	}
}

// compare returns what the table has that the API has not, and the reverse.
func (s *stuckSubscriber) compare(pods []corev1.Pod, uids map[string]bool) (wrong []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad != nil {
		return nil, s.bad
	}
	for u := range s.table {
		if !uids[u] {
			wrong = append(wrong, "stale "+u)
		}
	}
	for u := range uids {
		if s.table[u] == nil {
			wrong = append(wrong, "missing "+u)
		}
	}
	for i := range pods {
		var meta struct {
			Labels map[string]string `json:"labels"`
		}
		e := s.table[string(pods[i].UID)]
		if e == nil {
			continue // missing, counted above
		}
		if err := json.Unmarshal([]byte(e.GetMeta()), &meta); err != nil {
			return nil, fmt.Errorf("meta of pod %s: %w", pods[i].Name, err)
		}
		if meta.Labels[changeLabel] != pods[i].Labels[changeLabel] {
			wrong = append(wrong, "outdated "+pods[i].Name)
		}
	}
	return wrong, nil
}
