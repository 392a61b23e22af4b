package report

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/wiring"
)

// state is what is with a Falco pod.
type state string

const (
	stateWired     state = "wired"
	stateStoodDown state = "stood_down" // left as it was, with a reason
	stateOptedOut  state = "opted_out"
	statePending   state = "pending" // too early to tell
	stateWaiting   state = "waiting" // kept from starting by our init container
	stateUnwired   state = "unwired"
	stateOutdated  state = "outdated" // trusts none of the authorities of today
)

func states() []state {
	return []state{stateWired, stateStoodDown, stateOptedOut, statePending, stateWaiting, stateUnwired, stateOutdated}
}

// reason is an Event's.
type reason string

const (
	reasonNotWired reason = "NotWired"
	reasonWaiting  reason = "WaitingForMetawire"
	reasonOutdated reason = "OutdatedAuthority"
)

func reasons() []reason { return []reason{reasonNotWired, reasonWaiting, reasonOutdated} }

// finding is what was found of a pod.
type finding struct {
	pod     *roster.Pod
	state   state
	reason  reason // of an Event; empty: there is nothing to tell
	message string
	again   time.Duration // when it is something else without a change; 0: never
}

// judge says what is with a pod.
type judge struct {
	now         time.Time
	patience    time.Duration
	authorities []string
}

// pod judges a Falco pod that is not finished.
func (j *judge) pod(p *roster.Pod) finding {
	f := finding{pod: p}
	switch {
	case p.OptedOut, p.Namespace == metav1.NamespaceSystem: // the webhook leaves it alone
		f.state = stateOptedOut
	case p.Status == nil && p.Running:
		f.unwired("the webhook did not see this pod when it was created: it was not there then, or did not answer, or leaves this namespace out")
	case p.Status == nil:
		f.state = statePending
	case p.Status.Outcome == wiring.StoodDown:
		f.state = stateStoodDown
	default:
		j.wired(&f)
	}
	return f
}

// wired judges a pod that the webhook wired.
func (j *judge) wired(f *finding) {
	switch f.pod.Init.State {
	case roster.InitDone:
		j.verdict(f)
	case roster.InitWaiting:
		j.waits(f, f.pod.Created)
	case roster.InitRunning:
		j.waits(f, f.pod.Init.Since)
	default:
		if f.state = statePending; f.pod.Running {
			f.unwired(fmt.Sprintf("it was made without the init container %s", wiring.InitContainer))
		}
	}
}

// verdict judges a pod whose init container has ended.
func (j *judge) verdict(f *finding) {
	v, err := wiring.ParseVerdict(f.pod.Init.Message)
	switch {
	case err != nil:
		f.unwired(fmt.Sprintf("the init container %s ended without saying what it did; see its logs", wiring.InitContainer))
	case v.StoodDown:
		f.state = stateStoodDown
	case !v.Wired:
		f.unwired(strings.TrimSuffix(v.Reason, "."))
	case j.outdated(f.pod.Status.CAs):
		f.state, f.reason = stateOutdated, reasonOutdated
		f.message = "Falco trusts none of the certificate authorities that Metawire uses now, and cannot subscribe. To renew them: " + renew(f.pod)
	default:
		f.state = stateWired
	}
}

// outdated reports whether none of the authorities is one of today. A pod
// without any does not verify.
func (j *judge) outdated(cas []string) bool {
	return len(cas) > 0 && len(j.authorities) > 0 &&
		!slices.ContainsFunc(cas, func(ca string) bool { return slices.Contains(j.authorities, ca) })
}

// waits judges a pod that our init container has kept waiting since then.
func (j *judge) waits(f *finding, since time.Time) {
	if left := since.Add(j.patience).Sub(j.now); left > 0 {
		f.state, f.again = statePending, left
		return
	}
	why := ""
	if f.pod.Init.Reason != "" {
		why = " (" + f.pod.Init.Reason + ")"
	}
	f.state, f.reason = stateWaiting, reasonWaiting
	f.message = fmt.Sprintf("Falco has not started for over %s: its init container %s is not done%s. "+
		"Its image must be one that this node can pull: check the chart's image and webhook.imagePullSecrets, then: %s. "+
		`To start Falco without Metawire, annotate the pod template with %s: "false".`,
		j.patience, wiring.InitContainer, why, renew(f.pod), wiring.InjectAnnotation)
}

// unwired says that the pod is not wired, and why.
func (f *finding) unwired(why string) {
	f.state, f.reason = stateUnwired, reasonNotWired
	f.message = fmt.Sprintf(`Falco runs without Metawire: %s. To wire it: %s. If that is wanted, annotate the pod template with %s: "false".`,
		why, renew(f.pod), wiring.InjectAnnotation)
}

// renew says how to have the pod made again.
func renew(p *roster.Pod) string {
	switch p.Owner.Kind {
	case "DaemonSet", "StatefulSet":
		return fmt.Sprintf("kubectl -n %s rollout restart %s/%s", p.Namespace, strings.ToLower(p.Owner.Kind), p.Owner.Name)
	case "":
		return fmt.Sprintf("delete pod %s in namespace %s and create it again", p.Name, p.Namespace)
	default:
		return fmt.Sprintf("kubectl -n %s delete pod %s (its %s makes a new one)", p.Namespace, p.Name, p.Owner.Kind)
	}
}

// maxEventMessage is what the API server takes of an Event's message, in bytes.
const maxEventMessage = 1024

// event is the Event that tells of it. Its name is the same whoever makes it,
// so that two replicas make one.
func (f *finding) event(now time.Time) *corev1.Event {
	at := metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.pod.Namespace, Name: f.name()},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: f.pod.Namespace, Name: f.pod.Name, UID: types.UID(f.pod.UID),
		},
		Type: corev1.EventTypeWarning, Reason: string(f.reason), Message: shortened(f.message),
		Source:         corev1.EventSource{Component: "metawire-collector"},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
}

// name is the Event's: a name of at most 253 characters.
func (f *finding) name() string {
	sum := sha256.Sum256([]byte(f.pod.UID + "/" + string(f.reason)))
	end := fmt.Sprintf(".%x", sum[:8])
	start := f.pod.Name[:min(len(f.pod.Name), 253-len(end))]
	return strings.TrimRight(start, "-.") + end
}

// shortened cuts a text that is too long for an Event between characters.
func shortened(s string) string {
	const more = "..."
	if len(s) <= maxEventMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxEventMessage-len(more)], "") + more
}
