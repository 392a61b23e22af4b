package report

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/internal/wiring"
)

// finding is what was found of a pod.
type finding struct {
	wiring.Finding

	pod wiring.Pod
}

// told is the Event of it.
func (f *finding) told() told { return told{f.pod.UID, f.Reason} }

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
		Type: corev1.EventTypeWarning, Reason: string(f.Reason), Message: shortened(f.Message),
		Source:         corev1.EventSource{Component: "metawire-collector"},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
}

// name is the Event's: a name of at most 253 characters.
func (f *finding) name() string {
	sum := sha256.Sum256([]byte(f.pod.UID + "/" + string(f.Reason)))
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
