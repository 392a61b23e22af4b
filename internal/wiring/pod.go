package wiring

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is what Judge looks at of a Falco pod.
type Pod struct {
	UID, Namespace, Name string
	Running              bool // its phase
	// OptedOut says that its annotation forbids wiring.
	OptedOut bool
	// Status is what the webhook did with it; nil if it never looked at it.
	Status  *Status
	Init    Init
	Created time.Time
	// Owner is its controller, the zero value if it has none.
	Owner Owner
}

// InitState is how far our init container is.
type InitState uint8

// The states of our init container.
const (
	InitNone    InitState = iota // there is none, or the kubelet has not spoken of it
	InitWaiting                  // for its image, or for init containers before it
	InitRunning
	InitDone
)

// Init is our init container in a pod.
type Init struct {
	State InitState
	// Since is when it began to run or ended; zero while it waits, which
	// Kubernetes gives no time for.
	Since time.Time
	// Reason is why it waits, in the kubelet's words (ImagePullBackOff).
	Reason string
	// Message is its termination message, a Verdict, of at most 4 KiB.
	Message string
}

// Owner is the controller of a pod.
type Owner struct{ Kind, Name string }

// PodOf reads the marks of a pod.
func PodOf(p *corev1.Pod) Pod {
	out := Pod{
		UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Running: p.Status.Phase == corev1.PodRunning,
		OptedOut: p.Annotations[InjectAnnotation] == "false", Created: p.CreationTimestamp.Time,
	}
	if s, err := ParseStatus(p.Annotations[StatusAnnotation]); err == nil {
		out.Status = &s
	}
	if c := metav1.GetControllerOfNoCopy(p); c != nil {
		out.Owner = Owner{Kind: c.Kind, Name: c.Name}
	}
	for _, s := range p.Status.InitContainerStatuses {
		if s.Name != InitContainer {
			continue
		}
		out.Init.State = InitWaiting
		switch {
		case s.State.Waiting != nil:
			out.Init.Reason = s.State.Waiting.Reason
		case s.State.Running != nil:
			out.Init.State, out.Init.Since = InitRunning, s.State.Running.StartedAt.Time
		case s.State.Terminated != nil:
			out.Init = Init{State: InitDone, Since: s.State.Terminated.FinishedAt.Time, Message: s.State.Terminated.Message}
		}
	}
	return out
}
