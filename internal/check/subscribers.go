package check

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/rights"
	"github.com/metawire/metawire/internal/subscription"
	"github.com/metawire/metawire/internal/wiring"
)

const (
	// settled is how long Falco may take to subscribe: it loads its rules first.
	settled = time.Minute
	// lately is how long a refusal is one of now: the plugin tries again within two
	// minutes.
	lately = 150 * time.Second
)

// subscribers: every wired Falco subscribes, and nobody is refused.
func subscribers(ctx context.Context, t *Target) finding {
	for _, c := range t.failed {
		if c.id == "authorities" {
			return skip(fmt.Sprintf("the collectors are asked when this is so: %s", c.name))
		}
	}
	collectors, err := t.found.Pods(ctx, installation.Collector)
	if err != nil {
		return unread(err, "list pods in namespace "+t.found.Namespace)
	}
	if len(collectors) == 0 || !installation.Ready(&collectors[0]) {
		return skip("the collectors are asked when one is ready")
	}
	if why := t.mayNot(ctx, rights.Right{Verb: "create", Resource: "pods", Sub: "portforward"}, rights.Right{Verb: "create", Resource: "serviceaccounts", Sub: "token"}); why != "" {
		return skip(why)
	}
	pods, err := t.falcos(ctx)
	if err != nil {
		return unread(err, "list pods in all namespaces")
	}
	replicas, err := t.found.Subscriptions(ctx, "")
	if err != nil {
		return fail("see the checks of the collectors and of the authorities", err.Error())
	}
	return told(replicas).judge(pods, t.Now, anyReadySince(collectors, t.Now))
}

// anyReadySince is since when there has been a collector that is ready.
func anyReadySince(collectors []corev1.Pod, now time.Time) time.Time {
	since := now
	for i := range collectors {
		for _, c := range collectors[i].Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && c.LastTransitionTime.Time.Before(since) {
				since = c.LastTransitionTime.Time
			}
		}
	}
	return since
}

// told is what all collectors say of their subscribers.
type told []installation.Replica

// judge compares it with the Falco pods that there are. Since is when the collectors
// came: a plugin that found none waits before it tries again.
func (all told) judge(pods []corev1.Pod, now, since time.Time) finding {
	by, nameless, details, silent := all.byPod()
	if len(silent) == len(all) {
		return fail("see the check of the collectors", silent...)
	}
	var lost, bad, odd []string
	falcos := map[string]bool{}
	for i := range pods {
		p := &pods[i]
		falcos[string(p.UID)] = true
		if !expected(p, now) || by[p.UID] {
			continue
		}
		if nameless[p.Spec.NodeName] > 0 { // one of them is its; many share a node's address
			nameless[p.Spec.NodeName]--
		} else {
			lost = append(lost, fmt.Sprintf("%s/%s on node %s is wired, and no collector has it as a subscriber: its log says why: kubectl -n %s logs %s", p.Namespace, p.Name, p.Spec.NodeName, p.Namespace, p.Name))
		}
	}
	for _, r := range all.refusals(by, now) {
		switch uid := r.GetPod().GetUid(); {
		case falcos[uid] && !r.GetServed():
			bad = append(bad, refused(r, now)+advice(r))
		case falcos[uid], uid == "": // it may be a Falco behind an address of a node
			odd = append(odd, refused(r, now))
		default: // not Falco, or gone: as it should be
			details = append(details, refused(r, now))
		}
	}
	const hint = "metawire explain pod NAMESPACE/NAME says more; a Falco without a ticket gets one when it is made anew"
	away := now.Sub(since).Truncate(time.Second)
	if away >= lately {
		bad, lost = append(bad, lost...), nil
	}
	switch {
	case len(bad) > 0 && len(silent) == 0:
		return fail(hint, slices.Concat(bounded(bad), bounded(lost), odd, details)...)
	case len(silent) > 0: // who is missed may be the silent one's
		return warn("see the check of the collectors", slices.Concat(silent, bounded(append(bad, lost...)), odd, details)...)
	case len(lost) > 0:
		return warn(fmt.Sprintf("a Falco that found no collector tries again within two minutes: look again in %s", lately-away),
			slices.Concat([]string{fmt.Sprintf("no collector was ready until %s ago", away)}, bounded(lost), odd, details)...)
	case len(odd) > 0:
		return warn(hint, append(bounded(odd), details...)...)
	}
	return fine(details...)
}

// byPod returns which pods subscribe, of which nodes somebody does of whom the pod
// is not known (behind an address of the node, or because nobody is asked), a line
// for each collector, and which of them did not answer.
func (all told) byPod() (by map[types.UID]bool, nameless map[string]int, details, silent []string) {
	by, nameless = map[types.UID]bool{}, map[string]int{}
	for _, r := range all {
		if r.Err != nil {
			silent = append(silent, fmt.Sprintf("collector %s does not say who subscribes: %v", r.Pod, r.Err))
			continue
		}
		nodes := map[string]bool{}
		for _, s := range r.Told.GetSubscribers() {
			nodes[s.GetNode()] = true
			switch uid := s.GetPod().GetUid(); {
			case uid != "":
				by[types.UID(uid)] = true
			case s.GetBy() != "token": // that is a person
				nameless[s.GetNode()]++
			}
		}
		line := fmt.Sprintf("collector %s: %d subscribers of %d nodes", r.Pod, len(r.Told.GetSubscribers())+int(r.Told.GetLeftOut()), len(nodes))
		if n := r.Told.GetUnnamed(); n > 0 {
			line += fmt.Sprintf(", and %d that name no node and get nothing", n)
		}
		details = append(details, line)
	}
	return by, nameless, details, silent
}

// expected reports whether a Falco pod should be a subscriber by now: it is wired,
// and runs since long enough.
func expected(p *corev1.Pod, now time.Time) bool {
	f := wiring.Judge{Now: now}.Pod(wiring.PodOf(p))
	if f.State != wiring.StateWired && f.State != wiring.StateNoTicket {
		return false
	}
	for _, c := range p.Status.ContainerStatuses {
		if isFalcos(p, c.Name) {
			return c.State.Running != nil && now.Sub(c.State.Running.StartedAt.Time) > settled
		}
	}
	return false
}

// refusals are those of now, the newest first for each collector. Who subscribes
// meanwhile is not among them.
func (all told) refusals(by map[types.UID]bool, now time.Time) (out []*subscription.Refusal) {
	for _, r := range all {
		for _, f := range r.Told.GetRefusals() {
			last, err := time.Parse(time.RFC3339, f.GetLast())
			if err == nil && now.Sub(last) < lately && (f.GetServed() || !by[types.UID(f.GetPod().GetUid())]) {
				out = append(out, f)
			}
		}
	}
	return out
}

// refused says that somebody was, or would have been if it were enforced.
func refused(f *subscription.Refusal, now time.Time) string {
	was := "was refused"
	if f.GetServed() {
		was = "would be refused, with stream.authorization enforce,"
	}
	last, _ := time.Parse(time.RFC3339, f.GetLast()) // refusals has looked
	return fmt.Sprintf("%s %s %s, %d times, the last %s ago: %s (%s)", who(f), was, what(f), f.GetTimes(), max(0, now.Sub(last)).Round(time.Second), f.GetReason(), f.GetCode())
}

// advice says what to do about a Falco that is refused, if it is known from the code.
func advice(f *subscription.Refusal) string {
	switch f.GetCode() {
	case "ticket_forged": // by a key that is gone
		return fmt.Sprintf(". The key of the tickets is another one since: kubectl -n %s delete pod %s, and its owner makes one with a new ticket", f.GetPod().GetNamespace(), f.GetPod().GetName())
	case "ticket_key_unknown":
		return ". The collectors have no key of tickets: see the check of the tickets"
	}
	return ""
}

func who(f *subscription.Refusal) string {
	if p := f.GetPod(); p.GetName() != "" {
		return fmt.Sprintf("pod %s/%s (%s)", p.GetNamespace(), p.GetName(), f.GetAddress())
	}
	return "somebody at " + f.GetAddress()
}

func what(f *subscription.Refusal) string {
	if f.GetNode() == "" {
		return "a ticket"
	}
	return "node " + f.GetNode()
}
