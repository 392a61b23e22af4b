package inventory

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

var faultSeed = flag.Uint64("faults.seed", 1, "what the faults of TestFaults are drawn from")

// chaos draws the faults of requests.
type chaos struct {
	mu     sync.Mutex
	random *rand.Rand
	rate   float64
	left   int
	kinds  map[receiver.Kind]int
	taken  bool // a request of this run was taken in and then failed
}

func (c *chaos) fault(q *http.Request) receiver.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left <= 0 || c.random.Float64() >= c.rate {
		return receiver.Fault{}
	}
	c.left--
	kinds := receiver.Kinds()
	f := receiver.Fault{
		Kind: kinds[c.random.IntN(len(kinds))], Taken: c.random.IntN(2) == 0, RetryAfter: "0", Body: "no",
		Delay: time.Duration(c.random.IntN(60)) * time.Millisecond,
	}
	switch f.Kind {
	case receiver.ResetInBody:
		f.At = c.random.IntN(int(max(q.ContentLength, 0)) + 1)
	case receiver.CloseEarly:
		f.At = c.random.IntN(70)
	case receiver.WrongStatus:
		wrong := []int{200, 202, 302, 400, 403, 404, 408, 413, 501, 503}
		f.Status = wrong[c.random.IntN(len(wrong))]
	default:
	}
	c.kinds[f.Kind]++
	c.taken = c.taken || f.Taken || f.Kind == receiver.Slow
	return f
}

// turn begins a run with its own rate, and says whether any faults are left.
func (c *chaos) turn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate = []float64{0.05, 0.3, 0.6, 0.9}[c.random.IntN(4)]
	c.taken = false
	return c.left > 0
}

func (c *chaos) tookAny() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken
}

// TestFaults: 1,000 faults of every kind, at every point, against runs of several
// hundred objects. What a run says of itself is true each time, and in the end
// everything has arrived, no page twice.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		contract func(t *testing.T, s *Sender, spool *Spool) Contract
		faults   int
	}{
		"objects": {faults: 1000, contract: func(_ *testing.T, s *Sender, spool *Spool) Contract {
			return NewObjects(ObjectsOptions{Pages: PageOptions{Bytes: 4000}, Spool: spool}, s)
		}},
		"objects, small spool, plain": {faults: 250, contract: func(t *testing.T, s *Sender, _ *Spool) Contract {
			return NewObjects(ObjectsOptions{Pages: PageOptions{Bytes: 4000, Plain: true}, Spool: mustSpool(t, t.TempDir(), 20_000)}, s)
		}},
		"runs": {faults: 1000, contract: func(_ *testing.T, s *Sender, _ *Spool) Contract {
			return NewRuns(RunsOptions{Pages: PageOptions{Bytes: 4000}}, s)
		}},
		"runs, compression fails": {faults: 250, contract: func(_ *testing.T, s *Sender, _ *Spool) Contract {
			return &brokenZip{NewRuns(RunsOptions{Pages: PageOptions{Bytes: 4000}}, s)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faults(t, c.faults, func(s *Sender, spool *Spool) Contract { return c.contract(t, s, spool) })
		})
	}
}

// brokenZip is a contract whose compression fails.
type brokenZip struct{ Contract }

func (b *brokenZip) Begin(ctx context.Context, run Run) error {
	err := b.Contract.Begin(ctx, run)
	if c, ok := b.Contract.(*runs); ok && err == nil {
		c.zip.sink, c.pack.zip.sink = failing{}, failing{}
	}
	return err
}

func faults(t *testing.T, wantFaults int, contract func(*Sender, *Spool) Contract) {
	wild := &chaos{random: rand.New(rand.NewPCG(*faultSeed, 0)), left: wantFaults, kinds: map[receiver.Kind]int{}} //nolint:gosec // a test
	end := receiver.New(receiver.Options{AccessKey: testAccessKey, SecretKey: testSecretKey, Fault: wild.fault})
	url := serve(t, end)
	var log buffer
	s := newTestSender(t, url, SenderOptions{
		AccessKeys: testKeys, Attempts: 4, Wait: 100 * time.Microsecond, MaxWait: time.Millisecond, Timeout: 40 * time.Millisecond,
		Total: 10 * time.Second, Log: debugLog(&log),
	})
	c := contract(s, mustSpool(t, t.TempDir(), 0))
	var spool *Spool
	if o, ok := c.(*objects); ok {
		spool = o.o.Spool
	}
	results := map[Result]int{}
	waiting := map[string]bool{} // runs that had pages on disk, and whether they were whole then
	lost := ""                   // what was said of pages that went from there and were not taken
	for number := 1; ; number++ {
		more := wild.turn()
		run := testRun(fmt.Sprintf("%024x", number))
		// Objects are new in every run, so that one that arrives is of that run.
		all := testObjects(300, 100)
		for n := range all {
			uid := fmt.Sprintf("run-%d-%d", number, n)
			all[n].JSON = []byte(strings.Replace(string(all[n].JSON), fmt.Sprintf(`"uid":%q`, all[n].UID), fmt.Sprintf(`"uid":%q`, uid), 1))
			all[n].UID = uid
		}
		before := len(log.String())
		report, err := sendRun(t.Context(), c, run, all, Complete)
		// On a busy machine an answer may come too late without a fault.
		late := strings.Contains(log.String()[before:], "Client.Timeout")
		checkRun(t, end.Kept(), spool, run, all, report, err, wild.tookAny() || late)
		results[report.Result]++
		if report.Sent.Spooled > 0 {
			waiting[run.ID] = err == nil
		}
		for _, note := range report.Notes {
			if _, file, ok := strings.Cut(note, "a page of an earlier run was lost: "); ok {
				lost += file
			}
		}
		if said := fmt.Sprint(err) + mustJSON(t, report); hasSecret(said, "canary") {
			t.Errorf("a secret: %s", said)
		}
		if t.Failed() || !more {
			break
		}
	}
	k := end.Kept()
	if k.Faults != wantFaults || results[Complete] < 2 || results[NotSent] == 0 || len(wild.kinds) != len(receiver.Kinds()) {
		t.Errorf("%d faults %v, results %v", k.Faults, wild.kinds, results)
	}
	for uid, times := range k.Times {
		if times != 1 {
			t.Errorf("%s arrived in %d pages", uid, times)
		}
	}
	for id, whole := range waiting {
		// A page that is said to be lost may have been taken in, and refused then.
		got, sure := k.Runs[id], !strings.Contains(lost, id)
		if whole && sure && !got.Closed || !whole && (got.Closed || got.Last != 0) {
			t.Errorf("run %s waited on disk, whole %t: %+v, and lost were %s", id, whole, got, lost)
		}
	}
	if n, _ := spool.Waiting(); n > 0 {
		t.Errorf("%d pages wait after a run without faults", n)
	}
	if hasSecret(log.String(), "canary") {
		t.Error("a secret is in the log")
	}
	t.Logf("%d faults %v, results %v, %d duplicates, %d logins", k.Faults, wild.kinds, results, k.Duplicates, k.Logins)
}

// checkRun compares what a run says of itself with what arrived and what waits.
func checkRun(t *testing.T, k receiver.Kept, spool *Spool, run Run, all []Object, report *Report, err error, unsure bool) {
	t.Helper()
	arrived := 0
	for _, o := range all {
		if got, ok := k.Objects[o.UID]; ok {
			arrived++
			if string(got) != string(o.JSON) {
				t.Errorf("%s arrived as %s", o.UID, got)
			}
		}
	}
	kept := spooledObjects(t, spool, run.ID)
	state := k.Runs[run.ID]
	said := fmt.Sprintf("run %s: %v, %+v, %d of %d arrived, %d wait, %+v", run.ID, err, report.Sent, arrived, len(all), kept, state)
	switch {
	case errors.Is(err, ErrSkipped):
		t.Error("skipped by an endpoint that did not say so:", said)
	case err == nil && report.Result == Complete && (arrived != len(all) || kept != 0 || !state.Closed || report.Sent.Objects != len(all)):
		t.Error("complete, and is not:", said)
	case err == nil && report.Result == Partial && (arrived+kept < len(all) || report.Sent.Spooled == 0 || report.Sent.Objects+kept != len(all)):
		t.Error("partial, and something is lost:", said)
	case err != nil && report.Result == Complete && report.Sent.Objects > 0:
		t.Error("complete in spite of an error:", said)
	case err != nil && state.Closed && !unsure:
		t.Error("failed, and is closed:", said)
	}
	// What was acknowledged arrived; nothing else did, unless its answer was lost.
	if report.Sent.Objects > arrived || report.Sent.Objects < arrived && !unsure {
		t.Error("what arrived is not what was acknowledged:", said)
	}
}

// spooledObjects is how many objects of a run wait on disk.
func spooledObjects(t *testing.T, s *Spool, run string) int {
	t.Helper()
	if s == nil {
		return 0
	}
	n := 0
	for _, p := range s.all(t) {
		if p.Run == run {
			n += p.Objects
		}
	}
	return n
}
