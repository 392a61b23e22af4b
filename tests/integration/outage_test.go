package integration_test

import (
	"testing"
)

// TestAPIServerRestarts: it is killed and started again while objects change.
func TestAPIServerRestarts(t *testing.T) {
	outage(t, func() {
		if err := plane.Restart(t.Context(), "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEtcdRestarts: the API server stays, and answers with errors meanwhile.
func TestEtcdRestarts(t *testing.T) {
	outage(t, func() {
		if err := plane.Restart(t.Context(), "etcd"); err != nil {
			t.Fatal(err)
		}
	})
}

// outage lets something happen to the cluster while objects change, and wants
// every view to be right again after that, over the streams that were open.
func outage(t *testing.T, happens func()) {
	t.Helper()
	c := started(t, setup{kubeconfig: plane.Kubeconfig()})
	changes := newChanges(t)
	changes.make(t.Context(), 60)
	subscribers := changes.subscribers(t, c.at)
	converge(t, subscribers)
	stop := changes.background(t)
	happens()
	stop()
	converge(t, subscribers)
	changes.make(t.Context(), 60)
	converge(t, subscribers)
	for node, s := range subscribers {
		if ends := s.Ends(); len(ends) > 0 {
			t.Errorf("node %s: the stream ended: %v", node, ends)
		}
	}
}

// TestWatchExpires: the collector is cut off while objects change and go, etcd
// is compacted, and the API server's own memory of the changes is gone too: it
// must list anew.
func TestWatchExpires(t *testing.T) {
	id, line := newIdentity(t), newRelay(t)
	line.connect(t)
	c := started(t, setup{kubeconfig: kubeconfig(t, "https://"+line.address, id.token)})
	changes := newChanges(t)
	changes.make(t.Context(), 100)
	subscribers := changes.subscribers(t, c.at)
	converge(t, subscribers)
	if n := len(requests(t, id.user)["pods"].whole); n != 1 {
		t.Fatalf("pods were listed %d times at the start, want once", n)
	}

	line.cut()
	changes.make(t.Context(), 100)
	if _, err := plane.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := plane.Restart(t.Context(), "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	changes.make(t.Context(), 20)
	line.connect(t)
	converge(t, subscribers)
	if n := len(requests(t, id.user)["pods"].whole); n < 2 {
		t.Errorf("pods were listed %d times: no watch expired, and this test showed nothing", n)
	}
	if code, body := c.get(t, "readyz"); code != 200 {
		t.Errorf("/readyz answers %d: %s", code, body)
	}
}
