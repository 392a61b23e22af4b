package inventory

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestDocument: one JSON document, whatever came of the run.
func TestDocument(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		begun   bool
		objects []string
		want    int // objects in the document
	}{
		"objects":        {true, []string{`{"kind":"Pod"}`, `{"kind":"Node"}`}, 2},
		"none":           {true, nil, 0},
		"one too large":  {true, []string{`{"kind":"` + strings.Repeat("x", 100) + `"}`, `{"kind":"Pod"}`}, 1},
		"never begun":    {false, nil, 0},
		"only too large": {true, []string{strings.Repeat("x", 101)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			d := NewDocument(&b, 100)
			if c.begun {
				if err := d.Begin(t.Context(), Run{ClusterID: "a-cluster"}); err != nil {
					t.Fatal(err)
				}
			}
			for _, o := range c.objects {
				err := d.Add(t.Context(), Object{JSON: []byte(o)})
				if tooLarge := errors.Is(err, ErrTooLarge); tooLarge != (len(o) > 100) || err != nil && !tooLarge {
					t.Errorf("an object of %d bytes: %v", len(o), err)
				}
			}
			r := &Report{ClusterID: "a-cluster", Result: Complete}
			if err := errors.Join(d.End(t.Context(), r), d.Finish(r)); err != nil {
				t.Fatal(err)
			}
			var got struct {
				ClusterID string
				Objects   []json.RawMessage
				Report    Report
			}
			if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
				t.Fatalf("%v in %s", err, b.String())
			}
			if got.ClusterID != "a-cluster" || len(got.Objects) != c.want || got.Report.Sent.Objects != c.want {
				t.Errorf("the document is %s", b.String())
			}
		})
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	r := &Report{
		Result: Partial, Started: start, Ended: start.Add(1234 * time.Millisecond), Sent: Sent{Objects: 7, Pages: 2, Wire: 3 << 20},
		Types: []TypeReport{
			{Type: Type{Name: "pods"}, Outcome: OK, Listed: 7},
			{Type: Type{Name: "nodes"}, Outcome: Forbidden},
			{Type: Type{Name: "rollouts.argoproj.io"}, Outcome: Absent},
		},
		Error: "the endpoint is slow",
	}
	want := "partial: 7 objects of 3 types, 7 sent in 2 pages (3.0 MiB), within 1.23s; forbidden: nodes; absent: rollouts.argoproj.io; the endpoint is slow"
	if got := Summary(r); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.Error = strings.Repeat("é", 2000)
	if got := Summary(r); len(got) > 1024 || !strings.HasSuffix(got, "é...") {
		t.Errorf("a long one has %d bytes", len(got))
	}
}

// TestReportText: a report that a ConfigMap does not take is cut down.
func TestReportText(t *testing.T) {
	t.Parallel()
	r := &Report{Notes: []string{"a note"}}
	for i := range 10_000 {
		r.Types = append(r.Types, TypeReport{Type: Type{Name: "a-custom-resource.example.com"}, Outcome: OK})
		if i%1000 == 0 {
			r.Types[i].Outcome = Failed
		}
	}
	text, err := reportText(r)
	if err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Types) != 10 || len(got.Notes) != 2 || len(r.Notes) != 1 {
		t.Errorf("%d types and the notes %q are kept", len(got.Types), got.Notes)
	}
	for i := range r.Types {
		r.Types[i].Outcome = Failed
	}
	if text, err = reportText(r); err != nil || len(text) > maxReport {
		t.Errorf("%d bytes: %v", len(text), err)
	}
}
