package stream_test

import (
	"testing"
	"time"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/stream"
)

// Stock Falco keeps events of plugins in a queue and drains it every so often;
// what does not fit is lost (docs/stream.md).
const (
	falcoQueue = 4096
	falcoDrain = 100 * time.Millisecond
)

// lost is how many events a queue like Falco's would lose of those that arrived
// at these times, in order, in the worst case of when it is drained.
func lost(arrivals []time.Time) (worst int) {
	first := 0
	for i, at := range arrivals {
		for at.Sub(arrivals[first]) > falcoDrain {
			first++
		}
		worst = max(worst, i-first+1-falcoQueue)
	}
	return max(0, worst)
}

// arrivals subscribes and receives n events.
func arrivals(t *testing.T, s *served, n int) []time.Time {
	t.Helper()
	sub := watch(t, conn(t, s.address, smallWindow()...), "node-1", pluginKinds()...)
	at := make([]time.Time, n)
	for i := range at {
		sub.next(t)
		at[i] = time.Now()
	}
	return at
}

// stockPacing is what a collector does without a configuration of its own.
func stockPacing() stream.Options {
	return stream.Options{Burst: config.DefaultPacingBurst, Rate: config.DefaultPacingRate}
}

// TestFullNodeArrivesInTimeAndWhole: 250 pods and 2,000 services, with the
// default pacing, in under 2 s, and a queue like Falco's loses nothing.
func TestFullNodeArrivesInTimeAndWhole(t *testing.T) {
	s := serve(t, stockPacing(), nil)
	s.hub.Apply(namespace("ns"))
	node(s.hub, 250, 2000)
	began := time.Now()
	at := arrivals(t, s, 1+250+2000)
	if took := at[len(at)-1].Sub(began); took > 2*time.Second {
		t.Errorf("the full view took %s, want under 2s", took)
	}
	if n := lost(at); n > 0 {
		t.Errorf("Falco's queue would lose %d events", n)
	}
}

// TestPacedBeyondTheQueue: more than the queue holds arrives without a loss.
func TestPacedBeyondTheQueue(t *testing.T) {
	const pods, services = 100, 2 * falcoQueue
	s := serve(t, stockPacing(), nil)
	node(s.hub, pods, services)
	if n := lost(arrivals(t, s, pods+services)); n > 0 {
		t.Errorf("Falco's queue would lose %d of %d events", n, pods+services)
	}
}

// TestModelOfFalcosQueue: the model loses of a burst what does not fit, and
// nothing of what comes slowly.
func TestModelOfFalcosQueue(t *testing.T) {
	now := time.Now()
	burst, slow := make([]time.Time, 20_000), make([]time.Time, 20_000)
	for i := range burst {
		burst[i], slow[i] = now, now.Add(time.Duration(i)*falcoDrain/falcoQueue)
	}
	if got, want := lost(burst), 20_000-falcoQueue; got != want {
		t.Errorf("%d lost of a burst, want %d", got, want)
	}
	if got := lost(slow); got > 1 {
		t.Errorf("%d lost of what comes as fast as it is drained", got)
	}
}

// TestBurstThenRate: never more than the burst and what the rate has given
// since; and the burst itself does not wait.
func TestBurstThenRate(t *testing.T) {
	const burst, perSecond, n = 200, 100, 250
	s := serve(t, stream.Options{Burst: burst, Rate: perSecond}, nil)
	node(s.hub, n/2, n/2)
	began := time.Now()
	at := arrivals(t, s, n)
	for i, when := range at {
		if allowed := burst + perSecond*when.Sub(began).Seconds(); float64(i+1) > allowed {
			t.Fatalf("event %d after %s: %.0f were allowed", i+1, when.Sub(began), allowed)
		}
	}
	if took := at[burst-1].Sub(began); took >= burst*time.Second/perSecond {
		t.Errorf("the burst took %s, as long as by the rate alone", took)
	}
}

// TestSubscribersAreEachPaced: they do not share one pace.
func TestSubscribersAreEachPaced(t *testing.T) {
	const burst, perSecond, each, subscribers = 10, 100, 60, 10
	s := serve(t, stream.Options{Burst: burst, Rate: perSecond}, nil)
	node(s.hub, each/2, each/2)
	began := time.Now()
	subs := make([]*subscription, subscribers)
	for i := range subs {
		subs[i] = s.watch(t, "node-1", pluginKinds()...)
	}
	for _, sub := range subs {
		for range each {
			sub.next(t)
		}
	}
	if took, shared := time.Since(began), (each*subscribers-burst)*time.Second/perSecond; took >= shared {
		t.Errorf("took %s: with one pace for all it would be %s", took, shared)
	}
}
