package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metawire/metawire/collector/metadata"
)

func TestLedgerIsDoneWhenAllHasArrivedBothWays(t *testing.T) {
	l := newLedger(10, 2)
	for _, n := range []int{10, 11} {
		l.ask(n)
		l.watch(n)
		l.watch(n) // seen again after the watch was opened anew
	}
	l.deliver(9)
	l.deliver(12) // of another measurement
	l.deliver(10)
	select {
	case <-l.done:
		t.Fatal("done, and change 11 was not delivered")
	default:
	}
	l.deliver(11)
	<-l.done
	watched, delivered := l.collect()
	if len(watched) != 2 || len(delivered) != 2 {
		t.Errorf("%d watched, %d delivered, want 2 of each", len(watched), len(delivered))
	}
}

func TestQuantile(t *testing.T) {
	l := latencies{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 6, 0.99: 10, 1: 10} {
		if got := l.quantile(q); got != want {
			t.Errorf("quantile %v: %d, want %d", q, got, want)
		}
	}
	if got := (latencies{}).quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing: %v", got)
	}
}

func TestChangeNumber(t *testing.T) {
	for _, c := range []struct {
		name, meta string
		want       int
		found      bool
	}{
		{"a measured change", `{"labels":{"a":"b","bench.metawire.dev/change":"1234"},"name":"p"}`, 1234, true},
		{"a change that nobody measures", `{"labels":{"bench.metawire.dev/change":"n7"},"name":"p"}`, 0, false},
		{"no change yet", `{"name":"p"}`, 0, false},
	} {
		raw, err := proto.Marshal(&metadata.Event{Reason: metadata.Update, Uid: "u", Kind: "Pod", Meta: &c.meta})
		if err != nil {
			t.Fatal(err)
		}
		if got, found := changeNumber(raw); got != c.want || found != c.found {
			t.Errorf("%s: %d, %v, want %d, %v", c.name, got, found, c.want, c.found)
		}
	}
}

func TestReportSaysWhatReachesItsGoal(t *testing.T) {
	var r report
	r.judge(goalSyncWall, "1.2 s", "1 s", 1.2)
	r.judge(goalSyncCPU, "1.6 s", "1 s", 1.6)
	r.small = true
	r.judge(goalHeap, "9 KiB", "", 9)
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{"ok", "not", "small"} {
		if got := lines[i+1]; !strings.HasPrefix(got, "P") || !strings.HasSuffix(got, " "+want) {
			t.Errorf("row %d is %q, want a goal's number first and %q last", i, got, want)
		}
	}
}

func TestParseRefusesWhatCannotBeMeasured(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--nodes 995", "multiple"},
		{"--growth 250,1000", "three"},
		{"--growth 1000,250,5000", "ascend"},
		{"--rate 0", "--rate"},
		{"--stuck-rate 300", "--stuck-rate"},
		{"--pods-per-node 251", "250"},
		{"nodes", "nodes"},
	} {
		if _, err := parse(strings.Fields(c.args)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.args, err, c.want)
		}
	}
	s, err := parse([]string{"--quick", "--pods-per-node", "12"})
	if err != nil {
		t.Fatal(err)
	}
	if s.pods != 12 || s.nodes == 1000 {
		t.Errorf("--quick with 12 pods a node: %d pods, %d nodes", s.pods, s.nodes)
	}
}
