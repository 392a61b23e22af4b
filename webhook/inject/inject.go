// Package inject decides what becomes of a pod at admission and makes the pod
// that it becomes. It does no I/O and never changes its input.
package inject

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

// Settings are the same for every pod.
type Settings struct {
	// Version is the program's, as it stands in the status.
	Version string
	// Host and Port are the collector's stream, as pods reach it by DNS.
	Host string
	Port int
	// Addresses are those of the collector's Service, for pods that cannot
	// resolve its name.
	Addresses []string
	// CA is the PEM of the authorities to trust; empty for a plaintext stream.
	CA []byte
	// Image is that of the init container.
	Image            string
	ImagePullPolicy  corev1.PullPolicy
	ImagePullSecrets []string
	Plugin           wiring.Plugin
}

// Code is the reason of a decision in one word, from a closed set.
type Code string

// The codes.
const (
	Done       Code = "done"       // patched now
	Before     Code = "before"     // patched at an earlier call: nothing to do
	OptedOut   Code = "optedOut"   // the annotation forbids it
	NotFalco   Code = "notFalco"   // no container is Falco, and the annotation does not ask
	Several    Code = "several"    // more than one container is Falco
	System     Code = "system"     // a pod for Windows
	Version    Code = "version"    // a Falco that cannot join configurations
	Command    Code = "command"    // a command line that options cannot be added to
	Configured Code = "configured" // the command line configures the plugin
	Taken      Code = "taken"      // a name or a path that the patch needs is used
	Unresolved Code = "unresolved" // the pod cannot resolve the Service's name
)

// Codes returns all codes.
func Codes() []Code {
	return []Code{Done, Before, OptedOut, NotFalco, Several, System, Version, Command, Configured, Taken, Unresolved}
}

// Decision is what becomes of a pod.
type Decision struct {
	Outcome wiring.Outcome
	Code    Code
	Reason  string // one sentence, for people
}

// stoodDown leaves a pod that misses nothing as it is, notWired one that does.
func stoodDown(code Code, format string, args ...any) Decision {
	return Decision{wiring.StoodDown, code, fmt.Sprintf(format, args...)}
}

func notWired(code Code, format string, args ...any) Decision {
	return Decision{wiring.NotWired, code, fmt.Sprintf(format, args...)}
}

// Pod returns the pod that is to be admitted in place of the given one, and
// why. The result carries the decision in its status annotation. To inject it
// again changes nothing.
func Pod(pod *corev1.Pod, s Settings) (*corev1.Pod, Decision) {
	out := pod.DeepCopy()
	d := decide(out, s)
	if d.Code == Before {
		return out, d
	}
	status := wiring.Status{Version: s.Version, Outcome: d.Outcome, Reason: d.Reason}
	if d.Outcome.Patched() {
		status.CAs = wiring.Fingerprints(s.CA)
		if len(s.CA) > 0 {
			annotate(out, wiring.CAAnnotation, string(s.CA))
		}
	}
	annotate(out, wiring.StatusAnnotation, status.String())
	return out, d
}

func annotate(pod *corev1.Pod, key, value string) {
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[key] = value
}

// decide patches the pod unless it stands down.
func decide(pod *corev1.Pod, s Settings) Decision {
	asked := pod.Annotations[wiring.InjectAnnotation]
	if asked == "false" {
		return stoodDown(OptedOut, "annotation %s is \"false\"", wiring.InjectAnnotation)
	}
	if os := pod.Spec.OS; os != nil && os.Name == corev1.Windows {
		return notWired(System, "the pod is for Windows")
	}
	var found []int
	for i, c := range pod.Spec.Containers {
		if falco.Is(c.Name, c.Image) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 1:
		return wire(pod, found[0], s)
	case len(found) > 1:
		return notWired(Several, "containers %q and %q are both Falco: one is expected",
			pod.Spec.Containers[found[0]].Name, pod.Spec.Containers[found[1]].Name)
	case asked == "true":
		return subscribe(pod, s)
	}
	return stoodDown(NotFalco, "no container is named falco or has an image whose repository ends in /falco, and annotation %s is not \"true\"", wiring.InjectAnnotation)
}

// unresolving reports whether the pod's DNS does not know Services.
func unresolving(pod *corev1.Pod) bool {
	switch pod.Spec.DNSPolicy {
	case corev1.DNSClusterFirstWithHostNet:
		return false
	case corev1.DNSDefault, corev1.DNSNone:
		return true
	}
	return pod.Spec.HostNetwork
}

// resolve lets the pod find the collector's name. It reports whether it can.
func resolve(pod *corev1.Pod, s Settings) bool {
	if !unresolving(pod) {
		return true
	}
	for _, address := range s.Addresses {
		alias := corev1.HostAlias{IP: address, Hostnames: []string{s.Host}}
		if !slices.ContainsFunc(pod.Spec.HostAliases, func(a corev1.HostAlias) bool {
			return a.IP == address && slices.Contains(a.Hostnames, s.Host)
		}) {
			pod.Spec.HostAliases = append(pod.Spec.HostAliases, alias)
		}
	}
	return len(s.Addresses) > 0
}

// unresolved is the decision on a pod that resolve could not help.
func unresolved(s Settings) Decision {
	return notWired(Unresolved, "the pod cannot resolve %s, since its dnsPolicy is not ClusterFirstWithHostNet or ClusterFirst on a network of its own, and the address of the collector's Service is not known yet", s.Host)
}

// endpoint is the stream's host:port; the host is a DNS name.
func (s Settings) endpoint() string { return s.Host + ":" + strconv.Itoa(s.Port) }

// Names of what is added to a pod.
const (
	generatedVolume = "metawire-generated"
	caVolume        = "metawire-ca"
	tokenVolume     = "metawire-token" //nolint:gosec // a name
)

// addCA adds the volume that shows the authorities.
func addCA(pod *corev1.Pod, s Settings) {
	if len(s.CA) == 0 {
		return
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: caVolume, VolumeSource: corev1.VolumeSource{
		DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{
			Path:     "ca.crt",
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['" + wiring.CAAnnotation + "']"},
		}}},
	}})
}

func mount(volume, path string, readOnly bool) corev1.VolumeMount {
	return corev1.VolumeMount{Name: volume, MountPath: path, ReadOnly: readOnly}
}

// hasVolume reports whether the pod has one of the volumes.
func hasVolume(pod *corev1.Pod, names ...string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(names, v.Name) })
}

// fromNode is the source of a variable that holds the node's name.
func fromNode() *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: nodeNameField}}
}
