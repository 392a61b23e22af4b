package wiring

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// State is what is with a Falco pod.
type State string

// The states.
const (
	StateWired     State = "wired"
	StateNoTicket  State = "wired_without_ticket" // its address decides
	StateStoodDown State = "stood_down"           // left as it was, with a reason
	StateOptedOut  State = "opted_out"
	StatePending   State = "pending" // too early to tell
	StateWaiting   State = "waiting" // kept from starting by our init container
	StateUnwired   State = "unwired"
	StateOutdated  State = "outdated" // trusts none of the authorities of today
)

// States returns all states.
func States() []State {
	return []State{StateWired, StateNoTicket, StateStoodDown, StateOptedOut, StatePending, StateWaiting, StateUnwired, StateOutdated}
}

// Reason names, in one word, why a pod is not as it should be.
type Reason string

// The reasons.
const (
	ReasonNotWired Reason = "NotWired"
	ReasonWaiting  Reason = "WaitingForMetawire"
	ReasonOutdated Reason = "OutdatedAuthority"
	ReasonNoTicket Reason = "NoTicket"
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{ReasonNotWired, ReasonWaiting, ReasonOutdated, ReasonNoTicket}
}

// Finding is what was found of a pod.
type Finding struct {
	State State
	// Reason is empty if the pod is as it should be, or as somebody wants it.
	Reason Reason
	// Message says in one or two sentences what is so, and what to do if there
	// is a reason.
	Message string
	// Again is after how long it is something else without a change; 0: never.
	Again time.Duration
}

// Patience is how long our init container may keep a pod from starting before
// that is told.
const Patience = 2 * time.Minute

// Judge says what is with Falco pods.
type Judge struct {
	Now time.Time
	// Authorities are the fingerprints of those that are published now; without
	// any no pod is outdated.
	Authorities []string
	// NoTickets says that the collector gives none, so that none is missing.
	NoTickets bool
}

// Pod judges a Falco pod that is not finished.
func (j Judge) Pod(p Pod) Finding {
	f := found{pod: p}
	switch {
	case p.OptedOut:
		f.State, f.Message = StateOptedOut, "The webhook leaves this pod alone: its annotation "+InjectAnnotation+" is \"false\"."
	case p.LeftOut, p.Namespace == metav1.NamespaceSystem:
		f.State, f.Message = StateOptedOut, "The webhook leaves namespace "+p.Namespace+" alone."
	case p.Status == nil && p.Running:
		f.unwired("the webhook did not see this pod when it was created: it was not there then, or did not answer, or leaves this namespace out")
	case p.Status == nil:
		f.State, f.Message = StatePending, "The webhook did not see this pod when it was created, and it does not run yet."
	case p.Status.Outcome == StoodDown:
		f.State, f.Message = StateStoodDown, "The webhook left this pod as it was: "+p.Status.Reason+"."
	case p.Status.Outcome == NotWired && !p.Running:
		f.State, f.Message = StatePending, "The webhook could not wire this pod, and it does not run yet: "+p.Status.Reason+"."
	case p.Status.Outcome == NotWired:
		f.unwired("the webhook could not wire it: " + strings.TrimSuffix(p.Status.Reason, ".") + ". Change that first")
	default:
		j.wired(&f)
	}
	return f.Finding
}

// found is a finding that is being made.
type found struct {
	Finding

	pod Pod
}

// wired judges a pod that the webhook wired.
func (j Judge) wired(f *found) {
	switch f.pod.Init.State {
	case InitDone:
		j.verdict(f)
	case InitBehind:
		f.State, f.Message = StatePending, "The pod is wired, and init containers before ours are not done yet."
	case InitWaiting, InitRunning:
		j.waits(f, f.pod.Init.Since)
	default:
		if f.State, f.Message = StatePending, "The pod is wired and does not run yet."; f.pod.Running {
			f.unwired(fmt.Sprintf("it was made without the init container %s", InitContainer))
		}
	}
}

// verdict judges a pod whose init container has ended.
func (j Judge) verdict(f *found) {
	v, err := ParseVerdict(f.pod.Init.Message)
	switch {
	case err != nil:
		f.unwired(fmt.Sprintf("the init container %s ended without saying what it did; see its logs", InitContainer))
	case v.StoodDown:
		f.State, f.Message = StateStoodDown, "The init container stood down: "+v.Reason+"."
	case !v.Wired:
		f.unwired(strings.TrimSuffix(v.Reason, "."))
	case j.outdated(f.pod.Status.CAs):
		f.State, f.Reason = StateOutdated, ReasonOutdated
		f.Message = "Falco trusts none of the certificate authorities that Metawire uses now, and cannot subscribe. To renew them: " + renew(f.pod)
	case !v.Ticket && !j.NoTickets:
		j.withoutTicket(f, v)
	default:
		f.State, f.Message = StateWired, "The init container says: "+v.Reason+"."
	}
}

// withoutTicket judges a pod that got no ticket. Without TLS there is none to get.
func (j Judge) withoutTicket(f *found, v Verdict) {
	f.State, f.Message = StateNoTicket, "The init container says: "+strings.TrimSuffix(v.Reason, ".")+"."
	if len(f.pod.Status.CAs) > 0 {
		f.Reason = ReasonNoTicket
		f.Message = fmt.Sprintf("Falco got no ticket when it started, so the collector decides by the pod's address whether it may read its node. "+
			"To get one: %s. The init container says: %s.", renew(f.pod), strings.TrimSuffix(v.Reason, "."))
	}
}

// outdated reports whether none of the authorities is one of today. A pod
// without any does not verify.
func (j Judge) outdated(cas []string) bool {
	return len(cas) > 0 && len(j.Authorities) > 0 &&
		!slices.ContainsFunc(cas, func(ca string) bool { return slices.Contains(j.Authorities, ca) })
}

// waits judges a pod that our init container has kept waiting since then.
func (j Judge) waits(f *found, since time.Time) {
	if left := since.Add(Patience).Sub(j.Now); left > 0 {
		f.State, f.Again, f.Message = StatePending, left, "The init container is not done yet."
		return
	}
	why := ""
	if f.pod.Init.Reason != "" {
		why = " (" + f.pod.Init.Reason + ")"
	}
	f.State, f.Reason = StateWaiting, ReasonWaiting
	f.Message = fmt.Sprintf("Falco has not started for over %s: its init container %s is not done%s. "+
		"Its image must be one that this node can pull: check the chart's image and webhook.imagePullSecrets, then: %s. "+
		`To start Falco without Metawire, annotate the pod template with %s: "false".`,
		Patience, InitContainer, why, renew(f.pod), InjectAnnotation)
}

// unwired says that the pod is not wired, and why.
func (f *found) unwired(why string) {
	f.State, f.Reason = StateUnwired, ReasonNotWired
	f.Message = fmt.Sprintf(`Falco runs without Metawire: %s. To wire it: %s. If that is wanted, annotate the pod template with %s: "false".`,
		why, renew(f.pod), InjectAnnotation)
}

// renew says how to have the pod made again.
func renew(p Pod) string {
	switch p.Owner.Kind {
	case "DaemonSet", "StatefulSet":
		return fmt.Sprintf("kubectl -n %s rollout restart %s/%s", p.Namespace, strings.ToLower(p.Owner.Kind), p.Owner.Name)
	case "":
		return fmt.Sprintf("delete pod %s in namespace %s and create it again", p.Name, p.Namespace)
	default:
		return fmt.Sprintf("kubectl -n %s delete pod %s (its %s makes a new one)", p.Namespace, p.Name, p.Owner.Kind)
	}
}
