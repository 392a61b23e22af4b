package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metawire/metawire/collector/metadata"
)

// syncTime is what a first sync of all subscribers took.
type syncTime struct {
	wall, cpu             time.Duration // from the first connection on
	streamWall, streamCPU time.Duration // of that, since all connections stood
}

// firstSync compares the first sync of one subscriber a node with a server
// that only sends the same bytes.
func (b *bench) firstSync(ctx context.Context) error {
	recorded, err := b.record(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(b.stage.dir, "recording")
	if err := recorded.write(file); err != nil {
		return err
	}
	replay, address, err := startSelf(ctx, b.log, replayCommand, "--file", file)
	if err != nil {
		return err
	}
	defer replay.kill()
	var ours, limit []syncTime
	for round := range b.rounds {
		o, err := b.syncAll(ctx, b.collector.stream, b.collector.pid)
		if err != nil {
			return fmt.Errorf("first sync: %w", err)
		}
		if err := b.collector.until(ctx, b.collector.subscribers(0)); err != nil {
			return err
		}
		l, err := b.syncAll(ctx, address, replay.pid)
		if err != nil {
			return fmt.Errorf("first sync from the replay: %w", err)
		}
		ours, limit = append(ours, o), append(limit, l)
		b.log.say("first sync %d of %d: collector %s wall, %s CPU; replay %s, %s; of that without connecting %s, %s; %s, %s",
			round+1, b.rounds, ms(o.wall), ms(o.cpu), ms(l.wall), ms(l.cpu),
			ms(o.streamWall), ms(o.streamCPU), ms(l.streamWall), ms(l.streamCPU))
	}
	for _, row := range []struct {
		goal   string
		figure func(syncTime) time.Duration
	}{
		{goalSyncWall, func(t syncTime) time.Duration { return t.wall }},
		{goalSyncCPU, func(t syncTime) time.Duration { return t.cpu }},
		{goalStreamWall, func(t syncTime) time.Duration { return t.streamWall }},
		{goalStreamCPU, func(t syncTime) time.Duration { return t.streamCPU }},
	} {
		o, l := median(ours, row.figure), median(limit, row.figure)
		b.report.judge(row.goal, ms(o), "same bytes made beforehand "+ms(l), ratio(o, l))
	}
	return nil
}

func median(times []syncTime, figure func(syncTime) time.Duration) time.Duration {
	var all []time.Duration
	for _, t := range times {
		all = append(all, figure(t))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// syncAll connects for all nodes, then subscribes for all at once, and measures
// until every subscriber has all that concerns its node.
func (b *bench) syncAll(ctx context.Context, address string, pid int) (t syncTime, err error) {
	started, err := markTime(pid)
	if err != nil {
		return t, err
	}
	f, err := dialFleet(ctx, address, b.stage.nodes, clientWindow)
	if err != nil {
		return t, err
	}
	defer f.close()
	connected, err := markTime(pid)
	if err != nil {
		return t, err
	}
	counts := make([]int, b.stage.nodes)
	var open atomic.Int64
	open.Store(int64(b.stage.nodes))
	done := make(chan struct{})
	f.watch(ctx, b.stage.nodeNames(), func(i int, _ []byte) {
		counts[i]++
		if counts[i] == b.stage.perNode() && open.Add(-1) == 0 {
			close(done)
		}
	})
	if err := f.wait(ctx, done); err != nil {
		return t, fmt.Errorf("%d of %d subscribers still wait: %w", open.Load(), b.stage.nodes, err)
	}
	ended, err := markTime(pid)
	return syncTime{
		wall: ended.at.Sub(started.at), cpu: ended.cpu - started.cpu,
		streamWall: ended.at.Sub(connected.at), streamCPU: ended.cpu - connected.cpu,
	}, err
}

// mark is a moment, and what a process has used until then.
type mark struct {
	at  time.Time
	cpu time.Duration
}

func markTime(pid int) (mark, error) {
	cpu, err := cpuTime(pid)
	return mark{time.Now(), cpu}, err
}

// record does a first sync without measuring: it keeps what each subscriber
// got and checks that this is all that concerns its node and nothing else.
func (b *bench) record(ctx context.Context) (recording, error) {
	f, err := dialFleet(ctx, b.collector.stream, b.stage.nodes, clientWindow)
	if err != nil {
		return nil, err
	}
	defer f.close()
	names := b.stage.nodeNames()
	events := make([][][]byte, len(names))
	var open atomic.Int64
	open.Store(int64(len(names)))
	done := make(chan struct{})
	f.watch(ctx, names, func(i int, event []byte) {
		if len(events[i]) == b.stage.perNode() {
			return
		}
		events[i] = append(events[i], bytes.Clone(event))
		if len(events[i]) == b.stage.perNode() && open.Add(-1) == 0 {
			close(done)
		}
	})
	if err := f.wait(ctx, done); err != nil {
		return nil, fmt.Errorf("record a first sync: %d of %d subscribers still wait: %w", open.Load(), len(names), err)
	}
	recorded, messages, size := recording{}, 0, int64(0)
	for i, name := range names {
		if err := checkFirst(events[i], b.stage.uidsOf(i)); err != nil {
			return nil, fmt.Errorf("what the subscriber of %s got: %w", name, err)
		}
		recorded[name] = events[i]
		messages += len(events[i])
		for _, e := range events[i] {
			size += int64(len(e))
		}
	}
	b.meanEvent = size / int64(messages)
	b.report.note("first sync, sent", fmt.Sprintf("%d messages, %s", messages, mib(size)), fmt.Sprintf("%d subscribers", len(names)))
	f.close()
	return recorded, b.collector.until(ctx, b.collector.subscribers(0))
}

// checkFirst tells whether the events are one Create for each UID.
func checkFirst(events [][]byte, uids map[string]bool) error {
	for _, raw := range events {
		var e metadata.Event
		if err := proto.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("decode an event: %w", err)
		}
		if e.GetReason() != metadata.Create || !uids[e.GetUid()] {
			return fmt.Errorf("%s of %s %s was not to come, or comes twice", e.GetReason(), e.GetKind(), e.GetUid())
		}
		delete(uids, e.GetUid())
	}
	return nil
}
