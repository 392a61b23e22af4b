package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/wiring"
)

// What a subscriber that is not Falco finds in its environment.
const (
	endpointVariable = "METAWIRE_ENDPOINT" // host:port
	nodeVariable     = "METAWIRE_NODE_NAME"
	caVariable       = "METAWIRE_CA_FILE" // not set for a plaintext stream
)

// subscribe gives every container what it needs in order to subscribe.
func subscribe(pod *corev1.Pod, s Settings) Decision {
	if before(pod, wiring.Subscriber) {
		return Decision{wiring.Subscriber, Before, "the pod was given the endpoint before"}
	}
	if hasVolume(pod, caVolume) {
		return notWired(Taken, "the pod has a volume %q of its own", caVolume)
	}
	if !resolve(pod, s) {
		return unresolved(s)
	}
	addCA(pod, s)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		setEnv(c, corev1.EnvVar{Name: endpointVariable, Value: s.endpoint()})
		setEnv(c, corev1.EnvVar{Name: nodeVariable, ValueFrom: fromNode()})
		if len(s.CA) > 0 && !occupied(c, wiring.CADir) {
			setEnv(c, corev1.EnvVar{Name: caVariable, Value: wiring.CAFile})
			c.VolumeMounts = append(c.VolumeMounts, mount(caVolume, wiring.CADir, true))
		}
	}
	return Decision{wiring.Subscriber, Done, fmt.Sprintf("%s, %s and, with TLS, %s are set in every container", endpointVariable, nodeVariable, caVariable)}
}

// before reports whether the pod carries the marks of a former call.
func before(pod *corev1.Pod, outcome wiring.Outcome) bool {
	status, err := wiring.ParseStatus(pod.Annotations[wiring.StatusAnnotation])
	return err == nil && status.Outcome == outcome
}

// setEnv adds a variable, unless the container has one of that name.
func setEnv(c *corev1.Container, v corev1.EnvVar) {
	if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == v.Name }) {
		c.Env = append(c.Env, v)
	}
}
