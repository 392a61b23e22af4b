package check

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// cause is why something is not as it should be.
type cause struct {
	text, hint string
	comes      bool // as it does at every start; no fault yet
}

// whom to ask for more.
type whom int

const (
	askNobody whom = iota
	askEvents
	askLog
	askItself
)

// podCause says from a pod's status why it is not ready, in Kubernetes' words
// where it has some, and whom to ask for more.
func podCause(p *corev1.Pod) (cause, whom) {
	ns := "kubectl -n " + p.Namespace
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return cause{text: c.Reason + ": " + c.Message, hint: "no node takes the pod: change what the message names (nodeSelector, affinity, tolerations, resources), or the nodes"}, askNobody
		}
	}
	for _, s := range p.Status.InitContainerStatuses { // of somebody else's: ours have none
		if w, done := s.State.Waiting, s.State.Terminated; w != nil && w.Reason != initializing || done != nil && done.ExitCode != 0 {
			if c, ask, ok := containerCause(p, &s); ok {
				c.text = "init container " + s.Name + ": " + c.text
				return c, ask
			}
		}
	}
	for _, s := range p.Status.ContainerStatuses {
		if c, ask, ok := containerCause(p, &s); ok {
			return c, ask
		}
	}
	if p.Status.Phase == corev1.PodFailed {
		return cause{text: fmt.Sprintf("%s: %s", cmp.Or(p.Status.Reason, "Failed"), p.Status.Message), hint: ns + " delete pod " + p.Name}, askNobody
	}
	return cause{text: string(p.Status.Phase) + ", and nothing of its containers is known", hint: ns + " describe pod " + p.Name + "; does its node run?"}, askEvents
}

func containerCause(p *corev1.Pod, s *corev1.ContainerStatus) (cause, whom, bool) {
	ns := "kubectl -n " + p.Namespace
	switch w, done := s.State.Waiting, s.State.Terminated; {
	case w != nil && isImage(w.Reason):
		return cause{text: fmt.Sprintf("%s: image %s: %s", w.Reason, s.Image, w.Message), hint: "check the values image.repository, image.tag and imagePullSecrets, and whether the nodes reach the registry"}, askNobody, true
	case w != nil && w.Reason == "CrashLoopBackOff":
		text := w.Reason
		if last := s.LastTerminationState.Terminated; last != nil {
			text += fmt.Sprintf(" (%s, exit code %d)", last.Reason, last.ExitCode)
		}
		return cause{text: text, hint: fmt.Sprintf("%s logs %s --previous", ns, p.Name)}, askLog, true
	case w != nil && (w.Reason == creating || w.Reason == initializing):
		return cause{text: w.Reason, hint: ns + " describe pod " + p.Name}, askEvents, true
	case w != nil:
		return cause{text: w.Reason + ": " + w.Message, hint: ns + " describe pod " + p.Name}, askNobody, true
	case done != nil:
		return cause{text: fmt.Sprintf("its container ended (%s, exit code %d)", done.Reason, done.ExitCode), hint: fmt.Sprintf("%s logs %s", ns, p.Name)}, askLog, true
	case s.State.Running != nil && !s.Ready:
		return cause{text: "it runs, and says that it is not ready yet", hint: "what it misses must come: see what it names, and " + ns + " logs " + p.Name}, askItself, true
	}
	return cause{}, askNobody, false
}

// isImage reports whether a container waits for its image in vain.
func isImage(reason string) bool {
	switch reason {
	case "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable", "ImageInspectError":
		return true
	}
	return false
}

// What containers wait for at every start.
const (
	creating     = "ContainerCreating"
	initializing = "PodInitializing" // init containers run
)

// recent is how long a crash is told of.
const recent = time.Hour

// crashed tells of the last crash of pods that are ready again.
func crashed(pods []corev1.Pod, now time.Time) (c cause) {
	var at time.Time
	for i := range pods {
		for _, s := range pods[i].Status.ContainerStatuses {
			last := s.LastTerminationState.Terminated
			if last == nil || last.ExitCode == 0 || now.Sub(last.FinishedAt.Time) > recent || last.FinishedAt.Time.Before(at) {
				continue
			}
			at = last.FinishedAt.Time
			c.text = fmt.Sprintf("pod %s ended %s ago (%s, exit code %d) and was started again", pods[i].Name, now.Sub(at).Round(time.Second), last.Reason, last.ExitCode)
			c.hint = fmt.Sprintf("kubectl -n %s logs %s --previous", pods[i].Namespace, pods[i].Name)
			if last.Reason == "OOMKilled" {
				c.hint = "raise the memory limit: the values collector.resources or webhook.resources"
			}
		}
	}
	return c
}
