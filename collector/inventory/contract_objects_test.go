package inventory

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

var smallPages = PageOptions{Bytes: 1000, MaxObject: 3000}

func TestObjects(t *testing.T) {
	for name, c := range map[string]struct {
		objects int
		result  Result
		plain   bool
		closed  bool
	}{
		"many":         {objects: 50, result: Complete, closed: true},
		"one":          {objects: 1, result: Complete, closed: true},
		"none":         {result: Complete, closed: true},
		"plain":        {objects: 50, result: Complete, plain: true, closed: true},
		"some missing": {objects: 50, result: Partial},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiver.New(receiver.Options{})
			o := ObjectsOptions{Pages: smallPages}
			o.Pages.Plain = c.plain
			objects := testObjects(c.objects, 100)
			report, err := sendRun(t.Context(), NewObjects(o, newTestSender(t, serve(t, r), SenderOptions{})), testRun(testRunID), objects, c.result)
			if err != nil || report.Result != c.result {
				t.Fatal(err, report.Result)
			}
			k := r.Kept()
			wantKept(t, k, objects)
			if got := k.Runs[testRunID]; got.Closed != c.closed || got.Pages != len(k.Pages) {
				t.Errorf("%+v", got)
			}
			if s := report.Sent; s.Pages != len(k.Pages) || s.Objects != c.objects || s.Bytes == 0 || s.Wire == 0 || s.Wire >= s.Bytes != c.plain && c.objects > 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestObjectsDeleted(t *testing.T) {
	r := receiver.New(receiver.Options{})
	c := NewObjects(ObjectsOptions{}, newTestSender(t, serve(t, r), SenderOptions{}))
	if _, err := sendRun(t.Context(), c, testRun(testRunID), testObjects(2, 1), Complete); err != nil {
		t.Fatal(err)
	}
	run := testRun("ffffffffffffffffffffffff")
	if err := c.Begin(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), testObject(1, 1).Identity); err != nil {
		t.Fatal(err)
	}
	report := &Report{Result: Complete}
	if err := c.End(t.Context(), report); err != nil || report.Sent.Objects != 0 || report.Sent.Pages != 1 {
		t.Fatal(err, report.Sent)
	}
	k := r.Kept()
	want := map[string]receiver.Gone{"uid-1": {UID: "uid-1", APIVersion: "v1", Kind: "ConfigMap", Namespace: "default", Name: "name-1"}}
	if d := cmp.Diff(want, k.Deleted); d != "" || len(k.Objects) != 1 {
		t.Error(d, len(k.Objects))
	}
}

// gate fails requests while it is shut.
type gate struct {
	status atomic.Int32 // 0 is open
	taken  atomic.Int32 // requests let through before it is shut, if above 0
}

func (g *gate) fault(*http.Request) receiver.Fault {
	if g.status.Load() == 0 || g.taken.Add(-1) >= 0 {
		return receiver.Fault{}
	}
	return receiver.Fault{Kind: receiver.WrongStatus, Status: int(g.status.Load()), Body: "shut"}
}

// TestObjectsSpool: a run whose pages are not taken after the third waits on
// disk, over a restart, and goes first; nothing is listed while it cannot.
func TestObjectsSpool(t *testing.T) {
	g := &gate{}
	r := receiver.New(receiver.Options{Fault: g.fault})
	dir := t.TempDir()
	s := newTestSender(t, serve(t, r), SenderOptions{Attempts: 2})
	contract := func() Contract {
		return NewObjects(ObjectsOptions{Pages: smallPages, Spool: mustSpool(t, dir, 0)}, s)
	}
	first := testObjects(30, 100)
	g.status.Store(503)
	g.taken.Store(3)
	report, err := sendRun(t.Context(), contract(), testRun(testRunID), first, Complete)
	pages, _ := mustSpool(t, dir, 0).Waiting()
	if err != nil || report.Result != Partial || report.Sent.Pages != 3 || report.Sent.Spooled != pages || pages < 3 || report.Sent.Retries != 1 {
		t.Fatalf("%v: %+v, %d pages wait", err, report, pages)
	}
	if k := r.Kept(); k.Runs[testRunID].Closed || len(report.Notes) != 1 || !strings.Contains(report.Notes[0], "answered 503") {
		t.Errorf("%+v, notes %q", k.Runs, report.Notes)
	}
	if w, ok := contract().(Waiter); !ok || w.Waiting() != pages {
		t.Error("nobody is told that pages wait")
	}
	const second = "222222222222222222222222"
	if _, err := sendRun(t.Context(), contract(), testRun(second), nil, Complete); err == nil || !strings.Contains(err.Error(), "waits in the spool") {
		t.Error(err)
	}
	g.status.Store(0)
	report, err = sendRun(t.Context(), contract(), testRun(second), nil, Complete)
	if err != nil || report.Result != Complete || len(report.Notes) != 1 || !strings.HasPrefix(report.Notes[0], "delivered ") {
		t.Errorf("%v: %+v", err, report)
	}
	k := r.Kept()
	wantKept(t, k, first)
	if !k.Runs[testRunID].Closed || !k.Runs[second].Closed {
		t.Errorf("%+v", k.Runs)
	}
}

// TestObjectsNotKept: what is neither taken nor kept is the run's error.
func TestObjectsNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		spool  func(t *testing.T) *Spool
		want   string
	}{
		"no spool":       {503, func(*testing.T) *Spool { return nil }, "answered 503"},
		"full":           {503, func(t *testing.T) *Spool { return mustSpool(t, t.TempDir(), 10) }, "the spool is full"},
		"refused":        {400, func(t *testing.T) *Spool { return mustSpool(t, t.TempDir(), 0) }, "answered 400"},
		"wrong success":  {200, func(*testing.T) *Spool { return nil }, "where only 204 is success"},
		"too large":      {413, func(t *testing.T) *Spool { return mustSpool(t, t.TempDir(), 0) }, "page 4: POST"},
		"disk is broken": {503, brokenSpool, "keep page"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gate{}
			r := receiver.New(receiver.Options{Fault: g.fault})
			g.status.Store(int32(c.status)) //nolint:gosec // small
			g.taken.Store(3)
			o := ObjectsOptions{Pages: smallPages, Spool: c.spool(t)}
			s := newTestSender(t, serve(t, r), SenderOptions{Attempts: 2})
			report, err := sendRun(t.Context(), NewObjects(o, s), testRun(testRunID), testObjects(30, 100), Complete)
			if err == nil || !strings.Contains(err.Error(), c.want) || report.Result != NotSent || report.Sent.Pages != 3 {
				t.Errorf("%v: %+v", err, report)
			}
			if pages, _ := o.Spool.Waiting(); pages != 0 || r.Kept().Runs[testRunID].Closed {
				t.Errorf("%d pages wait, %+v", pages, r.Kept().Runs)
			}
		})
	}
}

func brokenSpool(t *testing.T) *Spool {
	dir := filepath.Join(t.TempDir(), "gone")
	s := mustSpool(t, dir, 0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestObjectsLostPage: a page that was corrupted on disk, or that nobody will
// take, is named; what waits behind it goes, and closes nothing.
func TestObjectsLostPage(t *testing.T) {
	g := &gate{}
	r := receiver.New(receiver.Options{Fault: g.fault})
	dir := t.TempDir()
	s := newTestSender(t, serve(t, r), SenderOptions{Attempts: 1})
	c := NewObjects(ObjectsOptions{Pages: smallPages, Spool: mustSpool(t, dir, 0)}, s)
	g.status.Store(500)
	if _, err := sendRun(t.Context(), c, testRun(testRunID), testObjects(30, 100), Complete); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.page"))
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[1], 300); err != nil {
		t.Fatal(err)
	}
	g.status.Store(0)
	const second = "222222222222222222222222"
	report, err := sendRun(t.Context(), c, testRun(second), nil, Complete)
	if err != nil || len(report.Notes) != 2 || !strings.Contains(report.Notes[0], filepath.Base(files[1])) {
		t.Errorf("%v: %q", err, report.Notes)
	}
	k := r.Kept()
	if k.Runs[testRunID].Pages != len(files)-1 || k.Runs[testRunID].Last != 0 || !k.Runs[second].Closed {
		t.Errorf("%d files: %+v", len(files), k.Runs)
	}
}
