package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/wiring"
)

// What a subscriber that is not Falco finds in its environment.
const (
	endpointVariable = "METAWIRE_ENDPOINT" // host:port
	nodeVariable     = "METAWIRE_NODE_NAME"
	caVariable       = "METAWIRE_CA_FILE" // not set for a plaintext stream
)

// subscribe gives every container, sidecars among them, what it needs in order
// to subscribe.
func subscribe(pod *corev1.Pod, s Settings) Decision {
	if hasVolume(pod, caVolume) {
		return notWired(Taken, "the pod has a volume %q of its own", caVolume)
	}
	if !resolve(pod, s) {
		return unresolved(s)
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, authorities(s)...)
	var blind []string // cannot be shown the authorities
	subscribers := subscribers(pod)
	for _, c := range subscribers {
		setEnv(c, corev1.EnvVar{Name: endpointVariable, Value: s.endpoint()})
		setEnv(c, corev1.EnvVar{Name: nodeVariable, ValueFrom: fromNode()})
		switch {
		case len(s.CA) == 0: // what an earlier call set points at nothing now
			c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == caVariable && e.Value == wiring.CAFile })
		case occupied(c, wiring.CADir):
			blind = append(blind, fmt.Sprintf("%q", c.Name))
		default:
			setEnv(c, corev1.EnvVar{Name: caVariable, Value: wiring.CAFile})
			c.VolumeMounts = append(c.VolumeMounts, mount(caVolume, wiring.CADir, true))
		}
	}
	reason := fmt.Sprintf("%s, %s and, with TLS, %s are set in every container", endpointVariable, nodeVariable, caVariable)
	switch len(blind) {
	case 0:
	case len(subscribers):
		return notWired(Taken, "every container mounts something at, above or below %s, so none can be shown the authorities", wiring.CADir)
	default:
		reason += fmt.Sprintf("; not %s in %s: something is mounted at, above or below %s", caVariable, strings.Join(blind, ", "), wiring.CADir)
	}
	return Decision{wiring.Subscriber, Done, reason}
}

// subscribers are the containers that run as long as the pod.
func subscribers(pod *corev1.Pod) (all []*corev1.Container) {
	for i := range pod.Spec.InitContainers {
		if restarts(pod.Spec.InitContainers[i]) {
			all = append(all, &pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	return all
}

// setEnv adds a variable, unless the container has one of that name.
func setEnv(c *corev1.Container, v corev1.EnvVar) {
	if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == v.Name }) {
		c.Env = append(c.Env, v)
	}
}
