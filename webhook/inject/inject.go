// Package inject decides what becomes of a pod at admission and makes the pod
// that it becomes. It does no I/O and never changes its input.
package inject

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"

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
	Done        Code = "done"        // patched now
	Before      Code = "before"      // patched at an earlier call: nothing to do
	OptedOut    Code = "optedOut"    // the annotation forbids it
	NotFalco    Code = "notFalco"    // no container is Falco, and the annotation does not ask
	Several     Code = "several"     // more than one container is Falco
	System      Code = "system"      // a pod for Windows, or one that a node's file describes
	Version     Code = "version"     // a Falco that cannot join configurations
	Command     Code = "command"     // a command line that options cannot be added to
	Configured  Code = "configured"  // the command line configures the plugin
	Sidecar     Code = "sidecar"     // a sidecar may write Falco's configuration at any time
	Taken       Code = "taken"       // a name or a path that the patch needs is used
	Unresolved  Code = "unresolved"  // the pod cannot resolve the Service's name
	Annotations Code = "annotations" // the pod's are too large together
)

// Codes returns all codes.
func Codes() []Code {
	return []Code{
		Done, Before, OptedOut, NotFalco, Several, System, Version, Command,
		Configured, Sidecar, Taken, Unresolved, Annotations,
	}
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
// why. The result carries the decision in its status annotation, and nothing
// else of ours unless it is patched. What an earlier call left, on this pod or
// on the one that it was copied from, is made anew: to inject again changes
// nothing but what other settings ask for.
func Pod(pod *corev1.Pod, s Settings) (*corev1.Pod, Decision) {
	bare := without(pod)
	out := bare.DeepCopy()
	d := decide(out, s)
	if d.Outcome.Patched() {
		if len(s.CA) > 0 {
			annotate(out, wiring.CAAnnotation, string(s.CA))
		}
		if sign(out, d, s) {
			if equality.Semantic.DeepEqual(pod, out) {
				d.Code = Before
			}
			return out, d
		}
		d = notWired(Annotations, "with the certificates of Metawire's authorities the annotations of the pod would have over %d bytes", apivalidation.TotalAnnotationSizeLimitB)
	}
	if !sign(bare, d, s) {
		delete(bare.Annotations, wiring.StatusAnnotation)
	}
	return bare, d
}

// sign leaves the decision on the pod. It reports whether the API takes so much.
func sign(pod *corev1.Pod, d Decision, s Settings) bool {
	status := wiring.Status{Version: s.Version, Outcome: d.Outcome, Reason: d.Reason}
	if d.Outcome.Patched() {
		status.CAs = wiring.Fingerprints(s.CA)
	}
	annotate(pod, wiring.StatusAnnotation, status.String())
	return apivalidation.ValidateAnnotationsSize(pod.Annotations) == nil
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
	if _, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		return notWired(System, "the pod mirrors one that a file of its node describes, and cannot be changed here")
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
// An address has one entry, as in the API's schema; ours come first, since of
// several the resolver may take the first.
func resolve(pod *corev1.Pod, s Settings) bool {
	if !unresolving(pod) {
		return true
	}
	rest := slices.Clone(pod.Spec.HostAliases)
	var ours []corev1.HostAlias
	for _, address := range s.Addresses {
		alias := corev1.HostAlias{IP: address}
		if i := slices.IndexFunc(rest, func(a corev1.HostAlias) bool { return a.IP == address }); i >= 0 {
			alias = rest[i]
			rest = slices.Delete(rest, i, i+1)
		}
		if !slices.Contains(alias.Hostnames, s.Host) {
			alias.Hostnames = append(slices.Clone(alias.Hostnames), s.Host)
		}
		ours = append(ours, alias)
	}
	pod.Spec.HostAliases = append(ours, rest...)
	return len(s.Addresses) > 0
}

// unresolved is the decision on a pod that resolve could not help.
func unresolved(s Settings) Decision {
	return notWired(Unresolved, "the pod cannot resolve %s, since its dnsPolicy is not ClusterFirstWithHostNet or ClusterFirst on a network of its own, and the address of the collector's Service is not known yet", s.Host)
}

// endpoint is the stream's host:port; the host is a DNS name.
func (s Settings) endpoint() string { return s.Host + ":" + strconv.Itoa(s.Port) }
