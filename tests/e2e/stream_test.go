package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/tests/falco/plugin"
)

const (
	// subscribers are so many that each replica serves some, almost surely.
	subscribers = 8
	// caughtUpIn is how soon a subscriber that lost its replica must have the
	// right view from another: after its stream ended if it was drained, after
	// its next attempt if the replica was killed.
	caughtUpIn = 3 * time.Second
)

// fleet are subscribers of one node that behave like the plugin.
type fleet struct{ plugins []*plugin.Client }

// subscribe starts n subscribers, with the token of a viewer: they are outside
// of the cluster, so no address speaks for them.
func (w *world) subscribe(t *testing.T, addr string, n int) *fleet {
	t.Helper()
	f, ca, token := &fleet{}, w.authority(t), w.viewer(t)
	t.Cleanup(f.stop)
	for range n {
		f.plugins = append(f.plugins, plugin.Start(plugin.Options{
			Node:   w.node,
			Kinds:  plugin.Kinds(),
			Target: func() string { return addr },
			CA:     ca, ServerName: collectorHost, Token: token,
		}))
	}
	return f
}

// stop ends the subscriptions; to do so again does nothing.
func (f *fleet) stop() {
	for _, p := range f.plugins {
		p.Stop()
	}
}

// wrong returns what is wrong with a view of the fleet, if anything.
func (f *fleet) wrong(ctx context.Context, w *world) error {
	want, err := w.expected(ctx)
	if err != nil {
		return err
	}
	for i, p := range f.plugins {
		if err := viewOf(p.Table()).diff(want); err != nil {
			return fmt.Errorf("subscriber %d: %w", i, err)
		}
	}
	return nil
}

// right waits until every view of the fleet is right.
func (f *fleet) right(t *testing.T, w *world) {
	t.Helper()
	eventually(t, soon, func(ctx context.Context) error { return f.wrong(ctx, w) })
}

// mark returns how many streams of each subscriber have ended.
func (f *fleet) mark() (marks []int) {
	for _, p := range f.plugins {
		marks = append(marks, len(p.Ends()))
	}
	return marks
}

// lost returns the subscribers whose stream has ended since the marks.
func (f *fleet) lost(marks []int) (lost []int) {
	for i, p := range f.plugins {
		if len(p.Ends()) > marks[i] {
			lost = append(lost, i)
		}
	}
	return lost
}

// check requires that every stream that has ended since the mark was ended by
// the collector in order to drain, and that all views are right.
func (f *fleet) check(t *testing.T, w *world, marks []int) {
	t.Helper()
	eventually(t, soon, func(ctx context.Context) error { return f.wrong(ctx, w) })
	for i, p := range f.plugins {
		for _, e := range p.Ends()[marks[i]:] {
			if e.Code != codes.Aborted {
				t.Errorf("subscriber %d: a stream ended with %s", i, e.Code)
			}
		}
	}
}

// testMetadata: the views are those of the API while the workload changes.
func testMetadata(t *testing.T, w *world, f *fleet) {
	f.right(t, w)
	v := viewOf(f.plugins[0].Table())
	for _, pattern := range []string{
		`^Pod .*"name":"metawire-collector-`, `^Pod .*"k8s-app":"kube-dns"`, `^Pod .*"name":"web-`,
		`^Namespace .*"name":"kube-system"`, `^Namespace .*"name":"shop"`, `^Deployment .*"name":"web"`,
		`^ReplicaSet .*"name":"web-`, `^Service .*"name":"web"`, `^Service .*"name":"metawire-collector"`,
	} {
		if !v.has(pattern) {
			t.Errorf("nothing matches %s in %v", pattern, v)
		}
	}
	w.patchDeployment(t, shop, web, `{"spec":{"replicas":4}}`)
	f.right(t, w)
	w.patchDeployment(t, shop, web, `{"spec":{"template":{"metadata":{"labels":{"version":"2"}}}}}`)
	f.right(t, w)
	w.patchDeployment(t, shop, web, `{"metadata":{"labels":{"team":"a.b"}}}`)
	f.right(t, w)
	if v := viewOf(f.plugins[0].Table()); !v.has(`^Pod .*"version":"2"`) || !v.has(`^Deployment .*"team":"a.b"`) {
		t.Errorf("the changes are not in %v", v)
	}
	// With its last pod, a Deployment that still is in the API leaves the node,
	// and with it its ReplicaSets, its Service and its namespace.
	w.patchDeployment(t, shop, web, `{"spec":{"replicas":0}}`)
	f.right(t, w)
	if v := viewOf(f.plugins[0].Table()); v.has(`"name":"web`) || v.has(`"name":"shop"`) {
		t.Errorf("what has no pod on the node is still in %v", v)
	}
	w.patchDeployment(t, shop, web, `{"spec":{"replicas":3}}`)
	f.right(t, w)
}

// has tells whether an entry matches.
func (v view) has(pattern string) bool {
	re := regexp.MustCompile(pattern)
	for _, text := range v {
		if re.MatchString(text) {
			return true
		}
	}
	return false
}

// testDrained: a replica is deleted; its subscribers are sent away.
func testDrained(t *testing.T, w *world, f *fleet) {
	testLost(t, w, f, codes.Aborted, func(victim corev1.Pod) error {
		return w.api.CoreV1().Pods(namespace).Delete(t.Context(), victim.Name, metav1.DeleteOptions{})
	})
}

// testKilled: a replica's process is killed; its subscribers find out. The one
// that the kubelet starts in its place does not know what went meanwhile, so
// the chart keeps it unready until they are all with the replica that survives.
func testKilled(t *testing.T, w *world, f *fleet) {
	testLost(t, w, f, codes.Unavailable, kill)
}

// kill ends a collector's process with SIGKILL.
func kill(p corev1.Pod) error {
	proc, err := processOf(p)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(filepath.Base(proc))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// testLost ends the replica that serves most subscribers while objects change.
// Those subscribers' streams end with code, and they are right again in time,
// although an object went while they had none.
func testLost(t *testing.T, w *world, f *fleet, code codes.Code, end func(corev1.Pod) error) {
	f.right(t, w)
	victim, served := w.busiest(t)
	marks := f.mark()
	stop := w.churn(t)
	if err := end(victim); err != nil {
		t.Fatal(err)
	}
	var lost []int
	eventually(t, soon, func(context.Context) error {
		lost = f.lost(marks)
		if len(lost) < served {
			return fmt.Errorf("%d of %d streams have ended", len(lost), served)
		}
		return nil
	})
	stop()
	w.deletePodNow(t)
	f.caughtUp(t, w, lost, marks, code)
	w.rolledOut(t, namespace, collector)
	f.right(t, w)
}

// caughtUp requires that the streams of the lost subscribers have ended with
// code, and each to be right within caughtUpIn: of its stream's end if it was
// sent away, else of its next attempt.
func (f *fleet) caughtUp(t *testing.T, w *world, lost, marks []int, code codes.Code) {
	t.Helper()
	left := slices.Clone(lost)
	eventually(t, soon, func(ctx context.Context) error {
		want, err := w.expected(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		var wrong error
		left = slices.DeleteFunc(left, func(i int) bool {
			p := f.plugins[i]
			since, attempts := p.Ends()[marks[i]].At, p.Attempts()[marks[i]+1:]
			if len(attempts) == 0 {
				wrong = errors.New("no next attempt yet")
				return false
			}
			if code != codes.Aborted {
				since = attempts[0]
			}
			if err := viewOf(p.Table()).diff(want); err != nil {
				wrong = err
				return false
			}
			took := now.Sub(since)
			t.Logf("subscriber %d: right after %d ms, attempts %d", i, took.Milliseconds(), len(attempts))
			if took > caughtUpIn {
				t.Errorf("subscriber %d: right after %s, want at most %s", i, took, caughtUpIn)
			}
			return true
		})
		return wrong
	})
	for _, i := range lost {
		if got := f.plugins[i].Ends()[marks[i]].Code; got != code {
			t.Errorf("subscriber %d: its stream ended with %s, want %s", i, got, code)
		}
	}
}

// busiest returns the replica that serves most subscribers, and how many.
func (w *world) busiest(t *testing.T) (victim corev1.Pod, served int) {
	t.Helper()
	gauge := regexp.MustCompile(`(?m)^metawire_stream_subscribers (\d+)$`)
	for _, p := range w.mustCollectors(t) {
		metrics, err := get(t.Context(), p, 8080, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		found := gauge.FindStringSubmatch(metrics)
		if found == nil {
			t.Fatalf("pod %s does not tell its subscribers:\n%s", p.Name, metrics)
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		if n > served {
			victim, served = p, n
		}
	}
	if served == 0 {
		t.Fatal("no replica serves a subscriber")
	}
	return victim, served
}

// testRollingRestart: every replica is replaced; no subscriber is sent away in
// a way that makes it slow for good.
func testRollingRestart(t *testing.T, w *world, f *fleet) {
	marks := f.mark()
	stop := w.churn(t)
	w.patchDeployment(t, namespace, collector, fmt.Sprintf(
		`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339)))
	stop()
	f.check(t, w, marks)
	if lost := f.lost(marks); len(lost) != len(f.plugins) {
		t.Errorf("only subscribers %v have moved, of %d", lost, len(f.plugins))
	}
}
