package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/installation"
)

// mw is the release that a run is asked of.
func mw() *installation.Installation {
	return &installation.Installation{Namespace: "metawire", Release: "mw"}
}

// TestTrigger: the command waits for the run that it asked for, prints its
// report, and ends by what came of it.
func TestTrigger(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		result inventory.Result
		format string
		want   []string
	}{
		"complete":  {inventory.Complete, "text", []string{"TYPE", "pods", "complete: 3 objects of 1 types"}},
		"partial":   {inventory.Partial, "text", []string{"forbidden by the role", "too large: pods shop/big", "note: look here"}},
		"a program": {inventory.Partial, "json", []string{`"result": "partial"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := newState(fake.NewClientset(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "metawire", Name: "inventory"}}), "metawire", "inventory", "report")
			schedule, err := inventory.NewSchedule("@yearly", "UTC", 0)
			if err != nil {
				t.Fatal(err)
			}
			s := &inventory.Service{
				State: *state, Schedule: schedule, Log: slog.New(slog.DiscardHandler),
				Run: func(_ context.Context, progress func(inventory.Progress)) *inventory.Report {
					progress(inventory.Progress{Run: "r", Type: "pods", Types: 1, Objects: 3})
					return &inventory.Report{Run: "r", Result: c.result, Notes: []string{"look here"}, Types: []inventory.TypeReport{{
						Type: inventory.Type{Name: "pods"}, Outcome: inventory.OK, Listed: 3, Oversized: []string{"shop/big"}, Error: "forbidden by the role",
					}}}
				},
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Start(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			var stdout, stderr strings.Builder
			tr := trigger{output: &choice{value: c.format}, timeout: 30 * time.Second, poll: 20 * time.Millisecond}
			err = tr.run(t.Context(), mw(), state, nil, &stdout, &stderr)
			if finding := errors.Is(err, errFinding); finding != (c.result != inventory.Complete) || err != nil && !finding {
				t.Errorf("a %s run ends with %v", c.result, err)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("no %q in\n%s", want, stdout.String())
				}
			}
			if c.format == "json" && !json.Valid([]byte(stdout.String())) {
				t.Errorf("not JSON: %s", stdout.String())
			}
			if !strings.Contains(stderr.String(), "waiting for the collector that holds Lease metawire/inventory") {
				t.Errorf("stderr is %q", stderr.String())
			}
		})
	}
}

// TestTriggerWithoutACollector: nobody holds the Lease.
func TestTriggerWithoutACollector(t *testing.T) {
	t.Parallel()
	state := newState(fake.NewClientset(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "metawire", Name: "inventory"}}), "metawire", "inventory", "report")
	var stdout, stderr strings.Builder
	tr := trigger{output: &choice{value: "text"}, timeout: 50 * time.Millisecond, poll: time.Millisecond}
	err := tr.run(t.Context(), mw(), state, nil, &stdout, &stderr)
	for _, want := range []string{
		"no report within 50ms", "helm test mw -n metawire",
		"kubectl -n metawire logs --prefix --tail=-1 -l app.kubernetes.io/component=collector,app.kubernetes.io/instance=mw | grep inventory",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ends with %v, want %q in it", err, want)
		}
	}
}

// TestTriggerAJob: a Job is made of the CronJob, and the run that its pod makes is
// the answer; one that ends without a run is told at once.
func TestTriggerAJob(t *testing.T) {
	t.Parallel()
	meta := metav1.ObjectMeta{Namespace: "metawire", Name: "inventory", UID: "c"}
	cronJob := &batchv1.CronJob{ObjectMeta: meta}
	cronJob.Spec.JobTemplate.Labels = map[string]string{"app.kubernetes.io/component": "inventory"}
	cronJob.Spec.JobTemplate.Spec.Template.Spec.ServiceAccountName = "sender"
	tr := trigger{output: &choice{value: "text"}, timeout: 30 * time.Second, poll: 20 * time.Millisecond}
	for name, c := range map[string]struct {
		runs bool
		want string
	}{"a run": {true, ""}, "none": {false, "Job metawire/inventory-"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := fake.NewClientset(&coordinationv1.Lease{ObjectMeta: meta})
			state := newState(api, "metawire", "inventory", "report")
			made := make(chan *batchv1.Job, 1)
			api.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
				create, _ := a.(clienttesting.CreateAction)
				job, ok := create.GetObject().(*batchv1.Job)
				if ok && !c.runs {
					job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
				}
				made <- job
				return false, nil, nil // it is kept as it is now
			})
			ended := make(chan error, 1)
			var stdout, stderr strings.Builder
			go func() { ended <- tr.run(t.Context(), mw(), state, cronJob, &stdout, &stderr) }()
			job := <-made
			if o := metav1.GetControllerOf(job); o == nil || o.UID != "c" || job.Labels["app.kubernetes.io/component"] != "inventory" || job.Spec.Template.Spec.ServiceAccountName != "sender" {
				t.Errorf("the Job is %+v", job)
			}
			if c.runs {
				service := inventory.Service{State: *state, Log: slog.New(slog.DiscardHandler), Run: func(context.Context, func(inventory.Progress)) *inventory.Report {
					return &inventory.Report{Run: "r", Result: inventory.Complete}
				}}
				if _, err := service.Once(t.Context()); err != nil {
					t.Error(err)
				}
			}
			err := <-ended
			if (err == nil) != c.runs || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("it ends with %v", err)
			}
			if c.runs && !strings.Contains(stdout.String(), "complete: 0 objects") || !strings.Contains(stderr.String(), "waiting for Job metawire/inventory-") {
				t.Errorf("it says %q, %q", stdout.String(), stderr.String())
			}
		})
	}
}

// TestReceive: a line for each request, and what was wrong with it.
func TestReceive(t *testing.T) {
	t.Parallel()
	c := start(t, "inventory", "receive", "--address", "127.0.0.1:0")
	c.stderr.waitFor(t, "end with")
	url := regexp.MustCompile(`http://[0-9.:]+`).FindString(c.stderr.String())
	for _, body := range []string{`{"objects":[{"apiVersion":"v1","kind":"Pod","metadata":{"uid":"u","name":"a"}}]}`, `{"objects":`} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/ingest", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		q.Close = true
		answer, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
	c.stdout.waitFor(t, " 204 POST /ingest\n")
	c.stdout.waitFor(t, " 400 POST /ingest: ")
	if err := c.interrupt(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(c.stderr.String(), "1 objects and 0 deletions in 1 pages") {
		t.Errorf("at the end it says %q", c.stderr.String())
	}
}
