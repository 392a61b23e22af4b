package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

// steps remembers the requests of a run.
type steps struct {
	mu  sync.Mutex
	all []string
	bad []string // requests that lack a header of the contract
}

func (s *steps) fault(q *http.Request) receiver.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, q.Method+" "+strings.TrimPrefix(q.URL.Path, "/integrations/k8s/cluster-1"))
	h := q.Header
	if h.Get("Accept") != "application/json" || h.Get("User-Agent") != "metawire" || !strings.HasSuffix(q.URL.Path, "/login") &&
		q.Method != http.MethodGet && (h.Get("Content-Type") != "application/json; charset=UTF-8" || h.Get("Content-Encoding") != "gzip" || h.Get("Idempotency-Key") == "") {
		s.bad = append(s.bad, fmt.Sprint(q.URL, h))
	}
	return receiver.Fault{}
}

func (s *steps) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(slices.Compact(slices.Clone(s.all)), ", ")
}

func TestRuns(t *testing.T) {
	const start = "GET /fetching, POST /fetching/helm, POST /fetching/objects"
	for name, c := range map[string]struct {
		o      receiver.Options
		result Result
		steps  string
		note   string
	}{
		"complete":        {result: Complete, steps: start + ", PATCH /fetching, POST /fetching/metadata"},
		"partial":         {result: Partial, steps: start + ", POST /fetching/metadata", note: "the run was left open"},
		"a JSON string":   {o: receiver.Options{Integration: `"5f,false"`}, result: Complete, steps: start + ", PATCH /fetching, POST /fetching/metadata"},
		"an id alone":     {o: receiver.Options{Integration: "5f"}, result: Complete, steps: start + ", PATCH /fetching, POST /fetching/metadata"},
		"trees are asked": {o: receiver.Options{Integration: "5f,true"}, result: Complete, steps: start + ", PATCH /fetching, POST /fetching/metadata", note: "object trees"},
		"an old server":   {o: receiver.Options{Fetching: http.StatusNoContent}, result: Complete, steps: start + ", PATCH /fetching, POST /fetching/metadata"},
		"with a login": {
			o: receiver.Options{AccessKey: testAccessKey, SecretKey: testSecretKey}, result: Complete,
			steps: "POST /account/access_keys/login, " + start + ", PATCH /fetching, POST /fetching/metadata",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var seen steps
			c.o.Fault = seen.fault
			r := receiver.New(c.o)
			so := SenderOptions{}
			if c.o.AccessKey != "" {
				so.AccessKeys = testKeys
			}
			objects := testObjects(50, 100)
			o := RunsOptions{Pages: smallPages, OverrideUniqueClusterID: true, Releases: func(context.Context) ([]json.RawMessage, error) {
				return []json.RawMessage{[]byte(`{"name":"metawire"}`)}, nil
			}}
			sent := testRun(testRunID)
			sent.ServerVersion = "v1.35.1"
			report, err := sendRun(t.Context(), NewRuns(o, newTestSender(t, serve(t, r), so)), sent, objects, c.result)
			if err != nil || report.Result != c.result {
				t.Fatal(err, report.Result)
			}
			k := r.Kept()
			wantKept(t, k, objects)
			if seen.String() != c.steps {
				t.Errorf("steps: %s", seen.String())
			}
			if len(seen.bad) > 0 {
				t.Errorf("headers: %v", seen.bad)
			}
			run := k.Runs[testRunID]
			if run.Closed != (c.result == Complete) || (run.Result == "success") != run.Closed || run.Releases != 1 || k.Refused != 0 ||
				run.Kubernetes != "v1.35.1" || run.Collector != "test" {
				t.Errorf("%+v, %d refused", run, k.Refused)
			}
			if strings.Join(report.Notes, "") == "" != (c.note == "") || !strings.Contains(strings.Join(report.Notes, ""), c.note) {
				t.Errorf("%q", report.Notes)
			}
			if s := report.Sent; s.Pages != len(k.Pages) || s.Objects != 50 || s.Wire >= s.Bytes {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestRunsSkipped(t *testing.T) {
	for _, status := range []int{http.StatusTooEarly, http.StatusPaymentRequired, http.StatusConflict, http.StatusForbidden} {
		s := newTestSender(t, serve(t, receiver.New(receiver.Options{Fetching: status})), SenderOptions{})
		_, err := sendRun(t.Context(), NewRuns(RunsOptions{}, s), testRun(testRunID), nil, Complete)
		if errors.Is(err, ErrSkipped) != (status != http.StatusForbidden) || errors.Is(err, ErrTooEarly) != (status == http.StatusTooEarly) || statusOf(err) != status {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestRunsNotClosed: whatever is not taken leaves the run open, and the service
// is told why if it hears it.
func TestRunsNotClosed(t *testing.T) {
	for name, c := range map[string]struct {
		fails, want, told string
	}{
		"opening":  {"GET /integrations/k8s/cluster-1/fetching", "open the run: ", ""},
		"releases": {"POST /integrations/k8s/cluster-1/fetching/helm", "tell types and Helm releases: ", "failure"},
		"a page":   {"POST /integrations/k8s/cluster-1/fetching/objects", "page ", "failure"},
		"closing":  {"PATCH /integrations/k8s/cluster-1/fetching", "close the run: ", "failure"},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiver.New(receiver.Options{Fault: func(q *http.Request) receiver.Fault {
				if q.Method+" "+q.URL.Path == c.fails && (name != "a page" || q.Header.Get("Metawire-Page") == "5") {
					return receiver.Fault{Kind: receiver.Failure, Body: "no"}
				}
				return receiver.Fault{}
			}})
			s := newTestSender(t, serve(t, r), SenderOptions{Attempts: 2})
			report, err := sendRun(t.Context(), NewRuns(RunsOptions{Pages: smallPages}, s), testRun(testRunID), testObjects(50, 100), Complete)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasSuffix(err.Error(), "answered 500 Internal Server Error: no") {
				t.Error(err)
			}
			run := r.Kept().Runs[testRunID]
			if run.Closed || run.Result != c.told || c.told != "" && !strings.Contains(run.Error, c.want) {
				t.Errorf("%+v", run)
			}
			if name != "opening" && name != "releases" && report.Result != NotSent {
				t.Error(report.Result)
			}
		})
	}
}

func TestRunsTakeNoChanges(t *testing.T) {
	run := testRun(testRunID)
	run.Changes = true
	c := NewRuns(RunsOptions{}, newTestSender(t, "http://127.0.0.1:1", SenderOptions{}))
	if err := c.Begin(t.Context(), run); err == nil || c.Delete(t.Context(), Identity{}) == nil {
		t.Error(err)
	}
}

func TestParseOpened(t *testing.T) {
	for in, want := range map[string]opened{
		"5f": {integration: "5f"}, " 5f\n": {integration: "5f"}, "5f,true": {"5f", true}, `"5f,true"`: {"5f", true}, "5f, 1": {"5f", true},
		"5f,false": {integration: "5f"}, "5f,no": {integration: "5f"},
	} {
		if got, err := parseOpened([]byte(in)); err != nil || got != want {
			t.Errorf("%q: %+v %v", in, got, err)
		}
	}
	for _, in := range []string{"", ",true", `"`, `""`, "<html>", "5f&x=y", "a b", strings.Repeat("a", 200)} {
		if got, err := parseOpened([]byte(in)); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}
