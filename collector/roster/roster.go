// Package roster knows which pods, nodes and namespaces there are: who holds an
// address, which pods are Falco or subscribe, and what marks they carry. It is
// pure: no I/O, no goroutines. It judges nobody.
package roster

import (
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/metawire/metawire/internal/wiring"
)

// Pod is a pod as far as wiring and authorization are concerned.
type Pod struct {
	UID, Namespace, Name string
	// Node is the name of the node that it is bound to, empty while it is not.
	Node      string
	Addresses []netip.Addr
	// HostNetwork pods have their node's addresses and hold none.
	HostNetwork bool
	// Finished pods, Succeeded or Failed, have given up their addresses.
	Finished bool
	Running  bool // its phase
	// Falco says that one of its containers is Falco, OptedIn that its
	// annotation asks for wiring, OptedOut that it forbids it.
	Falco, OptedIn, OptedOut bool
	// Status is what the webhook did with it; nil if it never looked at it.
	Status  *wiring.Status
	Init    wiring.Init
	Created time.Time
	// Owner is its controller, the zero value if it has none.
	Owner wiring.Owner
}

// marked reports whether more of the pod is of interest than where it is.
func (p *Pod) marked() bool {
	return p.Subscribes() || p.Status != nil || p.Init.State != wiring.InitNone
}

// Subscribes reports whether the pod is one that may subscribe for its own
// node: it is Falco, or it opted in.
func (p *Pod) Subscribes() bool { return p.Falco || p.OptedIn }

// Roster is what is known of pods, nodes and namespaces. Any goroutine may call
// its methods; none of them blocks. What it returns is not to be modified.
type Roster struct {
	podsSynced, nodesSynced, namespacesSynced chan struct{}

	mu         sync.RWMutex
	pods       table
	nodes      nodes
	namespaces namespaces
	strays     strays
	changed    chan struct{} // nil while nobody waits
}

// New returns an empty roster.
func New() *Roster {
	r := &Roster{
		podsSynced:       make(chan struct{}),
		nodesSynced:      make(chan struct{}),
		namespacesSynced: make(chan struct{}),
		pods:             newTable(),
		nodes:            newNodes(),
		namespaces:       newNamespaces(),
	}
	r.pods.taken = r.notice
	return r
}

// SyncedPods is closed once all pods are known.
func (r *Roster) SyncedPods() <-chan struct{} { return r.podsSynced }

// SyncedNodes is closed once all nodes are known; never if the API server
// refuses them.
func (r *Roster) SyncedNodes() <-chan struct{} { return r.nodesSynced }

// ApplyPod takes in a pod's latest version.
func (r *Roster) ApplyPod(p Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods.apply(p) {
		r.broadcast()
	}
}

// DeletePod takes a pod out.
func (r *Roster) DeletePod(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods.remove(uid) {
		r.broadcast()
	}
}

// ReplacePods makes the pods the only ones.
func (r *Roster) ReplacePods(pods iter.Seq[Pod]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods.replace(pods)
	closeOnce(r.podsSynced)
	r.broadcast()
}

// Pod returns a pod: all of it if it is Falco, opted in or carries a mark of
// ours, else no more than its UID, node, addresses, HostNetwork and Finished.
func (r *Roster) Pod(uid string) (Pod, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.pods.pod(uid)
}

// Holder returns the pod that holds the address: one with a network of its own
// that is not finished. Of several, the one that took it last holds it; the
// others are about to be deleted. Interesting says that the pod is Falco or
// opted in.
func (r *Roster) Holder(a netip.Addr) (uid, node string, interesting, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.pods.holder(a)
}

// Changed returns a channel that is closed when anything in the roster is no
// longer what it is now. To wait for a condition, take the channel, look, wait,
// and begin anew.
func (r *Roster) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// broadcast wakes those who wait; it is called with the lock held.
func (r *Roster) broadcast() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Subscribers returns the pods that are Falco or opted in, in no order.
func (r *Roster) Subscribers() []Pod {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var all []Pod
	for _, p := range r.pods.marked {
		if p.Subscribes() {
			all = append(all, *p)
		}
	}
	return all
}

// Trusted reports whether every pod that was wired, or given what a subscriber
// needs, and is not finished, trusts the authority with the fingerprint. A pod
// that was given no authority verifies none and is left out. Before the pods
// are known the answer is no.
func (r *Roster) Trusted(fingerprint string) bool {
	select {
	case <-r.podsSynced:
	default:
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, p := range r.pods.marked {
		if p.Finished || p.Status == nil || !p.Status.Outcome.Patched() || len(p.Status.CAs) == 0 {
			continue
		}
		if !slices.Contains(p.Status.CAs, fingerprint) {
			return false
		}
	}
	return true
}

// plain is an address in the one form that is compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}
