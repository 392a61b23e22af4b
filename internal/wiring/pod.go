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
	// OptedOut says that its annotation forbids wiring, LeftOut that the webhook
	// leaves its namespace alone, which PodOf cannot tell.
	OptedOut, LeftOut bool
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
	InitBehind                   // init containers before it are not done
	InitWaiting                  // for its image
	InitRunning
	InitDone
)

// Init is our init container in a pod.
type Init struct {
	State InitState
	// Since is when it began to run or ended. Kubernetes gives no time for when
	// it began to wait: that is the last of the pod's creation, its binding to a
	// node, and the end of init containers before it.
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
	out.Init = InitOf(p.CreationTimestamp.Time, &p.Status)
	return out
}

// initializing is the reason for which a container waits while init containers
// before it are not done, or its own image is on its way.
const initializing = "PodInitializing"

// InitOf reads from a pod's status how far our init container is.
func InitOf(created time.Time, p *corev1.PodStatus) Init {
	behind, free := false, created
	for _, c := range p.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue {
			free = later(free, c.LastTransitionTime.Time)
		}
	}
	for i := range p.InitContainerStatuses {
		s := &p.InitContainerStatuses[i]
		running, ended := s.State.Running, s.State.Terminated
		switch {
		case s.Name != InitContainer && ended != nil && ended.ExitCode == 0:
			free = later(free, ended.FinishedAt.Time)
		case s.Name != InitContainer && running != nil && s.Started != nil && *s.Started: // one that goes on beside the others
			free = later(free, running.StartedAt.Time)
		case s.Name != InitContainer:
			behind = true
		case running != nil:
			return Init{State: InitRunning, Since: running.StartedAt.Time}
		case ended != nil:
			return Init{State: InitDone, Since: ended.FinishedAt.Time, Message: ended.Message}
		default:
			out := Init{State: InitWaiting, Since: free}
			if s.State.Waiting != nil {
				out.Reason = s.State.Waiting.Reason
			}
			if behind && (out.Reason == initializing || out.Reason == "") {
				return Init{State: InitBehind}
			}
			return out
		}
	}
	return Init{}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
