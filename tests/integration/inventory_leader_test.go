package integration_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/collector/inventory"
)

// newInventoryState is that of a release in a namespace of the test's own.
func newInventoryState(t *testing.T) inventory.State {
	t.Helper()
	clients, err := kubernetes.NewForConfig(apiREST)
	if err != nil {
		t.Fatal(err)
	}
	return inventory.State{API: clients, Namespace: newNamespace(t), Lease: "inventory", Report: "inventory-report", Index: "inventory-index"}
}

// replica is one of those that may send.
type replica struct {
	stop func()
	runs chan string // the name, when a run begins
}

// startReplica starts one whose runs last until they are canceled, or else end
// at once.
func startReplica(t *testing.T, state inventory.State, name string, runs chan string, lasting bool) *replica {
	t.Helper()
	schedule, err := inventory.NewSchedule("@every 1s", "UTC", 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &inventory.Service{
		State: state, Schedule: schedule, Log: slog.New(slog.DiscardHandler),
		Leader: inventory.Leader{Identity: name, Duration: 6 * time.Second},
		Run: func(ctx context.Context, progress func(inventory.Progress)) *inventory.Report {
			progress(inventory.Progress{Run: name, Types: 1})
			select {
			case runs <- name:
			case <-ctx.Done():
			}
			if lasting {
				<-ctx.Done()
				runs <- name + " canceled"
			}
			return &inventory.Report{Run: uuid.NewString(), Result: inventory.Complete, ClusterID: name, Ended: time.Now()}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	stopped := false
	r := &replica{runs: runs, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(r.stop)
	return r
}

func next(t *testing.T, runs chan string) string {
	t.Helper()
	select {
	case name := <-runs:
		return name
	case <-time.After(patience):
		t.Fatal("no run begins")
		return ""
	}
}

// TestInventoryReplicas: one of two makes the runs; when it is stopped the other
// does.
func TestInventoryReplicas(t *testing.T) {
	t.Parallel()
	state, runs := newInventoryState(t), make(chan string)
	replicas := map[string]*replica{}
	for _, name := range []string{"one", "two"} {
		replicas[name] = startReplica(t, state, name, runs, false)
	}
	first := next(t, runs)
	for range 3 {
		if name := next(t, runs); name != first {
			t.Fatalf("%s makes a run while %s holds the Lease", name, first)
		}
	}
	eventually(t, func() error {
		status, err := state.Status(t.Context())
		if err != nil {
			return err
		}
		if status.Report == nil || status.Report.ClusterID != first || status.LastSuccess.IsZero() {
			return fmt.Errorf("the status is %+v", status)
		}
		return nil
	})
	go replicas[first].stop()
	for name := next(t, runs); name == first; {
		name = next(t, runs)
	}
	var events corev1.EventList
	if err := api.List(t.Context(), &events, client.InNamespace(state.Namespace)); err != nil {
		t.Fatal(err)
	}
	if len(events.Items) < 3 || events.Items[0].Reason != "InventoryComplete" || events.Items[0].InvolvedObject.Kind != "Lease" {
		t.Errorf("the Events are %+v", events.Items)
	}
}

// TestInventoryLeaseIsLost: a run is canceled when another takes the Lease; the
// process goes on, and sends again when it holds it again.
func TestInventoryLeaseIsLost(t *testing.T) {
	t.Parallel()
	state, runs := newInventoryState(t), make(chan string)
	startReplica(t, state, "one", runs, true)
	if name := next(t, runs); name != "one" {
		t.Fatal(name)
	}
	eventually(t, func() error { // a conflict with a renewal is tried again
		var lease coordinationv1.Lease
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: state.Namespace, Name: state.Lease}, &lease); err != nil {
			return err
		}
		other, now := "other", lease.Spec.RenewTime.DeepCopy()
		now.Time = time.Now()
		lease.Spec.HolderIdentity, lease.Spec.RenewTime = &other, now
		return api.Update(t.Context(), &lease)
	})
	if name := next(t, runs); name != "one canceled" {
		t.Fatal(name)
	}
	if name := next(t, runs); name != "one" {
		t.Fatal(name)
	}
	go func() { <-runs }() // it is canceled when the test ends
}

// TestInventoryTrigger: an annotation of the Lease asks for a run, which is
// answered.
func TestInventoryTrigger(t *testing.T) {
	t.Parallel()
	state, runs := newInventoryState(t), make(chan string, 1000)
	startReplica(t, state, "one", runs, false)
	next(t, runs)
	if err := state.Ask(t.Context(), "now"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		status, err := state.Status(t.Context())
		if err != nil {
			return err
		}
		if status.Trigger != "now" {
			return fmt.Errorf("the trigger is %q", status.Trigger)
		}
		return nil
	})
}

// TestInventoryIndexFits: the API server takes the index of 50,000 objects, and
// gives it back.
func TestInventoryIndexFits(t *testing.T) {
	t.Parallel()
	state := newInventoryState(t)
	pods := inventory.Type{Name: "pods", Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true}
	run := func() (changed int, err error) {
		l := inventory.NewLedger(state, inventory.LedgerOptions{})
		if _, err := l.Begin(t.Context()); err != nil {
			return 0, err
		}
		for i := range 50_000 {
			uid := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, i)).String()
			id := inventory.Identity{
				UID: uid, APIVersion: "v1", Kind: "Pod", Namespace: fmt.Sprintf("team-%d", i%40),
				Name: fmt.Sprintf("service-%d-%s-%s", i%700, uid[:9], uid[10:15]), ResourceVersion: fmt.Sprint(123456789 + i*37%1000000),
			}
			if l.Changed(pods, id) {
				changed++
				l.Sent(pods, id)
			}
		}
		if gone := l.Gone(pods); len(gone) > 0 {
			return 0, errors.New("objects are gone")
		}
		return changed, l.End(t.Context(), true)
	}
	for i, want := range []int{50_000, 0} {
		changed, err := run()
		if err != nil {
			t.Fatal(err)
		}
		if changed != want {
			t.Errorf("run %d: %d objects changed, want %d", i+1, changed, want)
		}
	}
	var maps corev1.ConfigMapList
	if err := api.List(t.Context(), &maps, client.InNamespace(state.Namespace)); err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		size := 0
		for _, v := range m.BinaryData {
			size += len(v)
		}
		t.Logf("ConfigMap %s: %d bytes", m.Name, size)
		if size > 1<<20 {
			t.Errorf("ConfigMap %s has %d bytes", m.Name, size)
		}
	}
}
