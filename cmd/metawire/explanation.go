package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

// explanation is what is known of a pod.
type explanation struct {
	Pod       string `json:"pod"` // namespace/name
	Node      string `json:"node,omitempty"`
	Container string `json:"container,omitempty"` // Falco's
	Image     string `json:"image,omitempty"`
	Falco     string `json:"falcoVersion,omitempty"`
	// Wired says that nothing is missing for it to subscribe.
	Wired bool `json:"wired"`
	// State and Message are what the collector says of a running Falco pod.
	State   wiring.State `json:"state,omitempty"`
	Message string       `json:"message,omitempty"`
	// Admitted is when a pod was created, Status what the webhook did then, and
	// Verdict what the init container did.
	Admitted *time.Time      `json:"admitted,omitempty"`
	Status   *wiring.Status  `json:"status,omitempty"`
	Verdict  *wiring.Verdict `json:"verdict,omitempty"`
	// Streams is what the collectors say of a pod that subscribes, or tried to.
	Streams *streams `json:"streams,omitempty"`
	// Now is what the webhook would do with the pod as it is today.
	Now decision `json:"now"`
}

// decision is an inject.Decision.
type decision struct {
	Outcome wiring.Outcome `json:"outcome"`
	Code    inject.Code    `json:"code"`
	Reason  string         `json:"reason"`
	// Adds is what the patch adds to the pod.
	Adds []string `json:"adds,omitempty"`
}

// describe fills in what a pod's specification tells.
func describe(p *corev1.Pod, s inject.Settings) *explanation {
	x := &explanation{Pod: p.Namespace + "/" + p.Name, Node: p.Spec.NodeName}
	if p.Name == "" {
		x.Pod = p.Namespace + "/" + p.GenerateName + "*"
	}
	for _, c := range p.Spec.Containers {
		if falco.Is(c.Name, c.Image) {
			x.Container, x.Image = c.Name, c.Image
			if v := falco.Version(c.Image); v != nil {
				x.Falco = v.String()
			}
			break
		}
	}
	patched, d := inject.Pod(p, s)
	x.Now = decision{d.Outcome, d.Code, d.Reason, added(p, patched)}
	return x
}

// added names what a patch has added.
func added(before, after *corev1.Pod) []string {
	var all []string
	news := func(what string, had, has []string) {
		for _, name := range has {
			if !slices.Contains(had, name) {
				all = append(all, what+" "+name)
			}
		}
	}
	news("init container", names(before.Spec.InitContainers), names(after.Spec.InitContainers))
	volumes := func(p *corev1.Pod) (all []string) {
		for _, v := range p.Spec.Volumes {
			all = append(all, v.Name)
		}
		return all
	}
	news("volume", volumes(before), volumes(after))
	for i := range before.Spec.Containers {
		b, a := &before.Spec.Containers[i], &after.Spec.Containers[i]
		if len(a.Args) > len(b.Args) {
			all = append(all, fmt.Sprintf("arguments of container %s: %s", a.Name, strings.Join(a.Args[len(b.Args):], " ")))
		}
		env := func(c *corev1.Container) (all []string) {
			for _, e := range c.Env {
				all = append(all, e.Name)
			}
			return all
		}
		news("variable of container "+a.Name+":", env(b), env(a))
	}
	aliases := func(p *corev1.Pod) (all []string) {
		for _, h := range p.Spec.HostAliases {
			for _, name := range h.Hostnames {
				all = append(all, name+" for "+h.IP)
			}
		}
		return all
	}
	news("host alias", aliases(before), aliases(after))
	return all
}

func names(containers []corev1.Container) (all []string) {
	for _, c := range containers {
		all = append(all, c.Name)
	}
	return all
}

// judge says what is with a running pod.
func (x *explanation) judge(marks wiring.Pod, authorities []byte) {
	if x.Container == "" {
		x.Wired = marks.Status != nil && marks.Status.Outcome == wiring.Subscriber
		return
	}
	f := wiring.Judge{Now: time.Now(), Authorities: wiring.Fingerprints(authorities)}.Pod(marks)
	x.State, x.Message = f.State, f.Message
	x.Wired = f.State == wiring.StateWired || f.State == wiring.StateNoTicket
}

// subscribes reports whether a pod is one that subscribes.
func (x *explanation) subscribes() bool {
	return x.Container != "" || x.Status != nil && x.Status.Outcome == wiring.Subscriber
}

// print writes the explanation for people.
func (x *explanation) print(out io.Writer) error {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s "+format+"\n", append([]any{what}, args...)...)
	}
	fmt.Fprintf(&b, "Pod %s", x.Pod)
	if x.Node != "" {
		fmt.Fprintf(&b, " on node %s", x.Node)
	}
	fmt.Fprintln(&b)
	switch {
	case x.Container == "":
		line("Falco", "none of its containers")
	case x.Falco == "":
		line("Falco", "container %q, %s (its tag is no version)", x.Container, x.Image)
	default:
		line("Falco", "container %q, %s", x.Container, x.Image)
	}
	if x.Admitted != nil {
		at := x.Admitted.Local().Format(time.DateTime)
		if x.Status == nil {
			line("admission", "%s, not seen by the webhook", at)
		} else {
			line("admission", "%s, %s by webhook %s: %s", at, x.Status.Outcome, x.Status.Version, x.Status.Reason)
		}
	}
	if x.Verdict != nil {
		line("init", "%s", x.Verdict.Reason)
	}
	if x.State != "" {
		line("state", "%s", x.State)
	}
	if x.Streams != nil {
		x.Streams.lines(line)
	}
	switch {
	case x.Now.Code == notCalled:
		line("today", "%s", x.Now.Reason)
	case x.Status == nil || x.Status.Outcome != x.Now.Outcome: // else it was said
		line("today", "the webhook would say %s: %s", x.Now.Outcome, x.Now.Reason)
		for _, a := range x.Now.Adds {
			line("", "+ %s", a)
		}
	}
	if x.Message != "" {
		fmt.Fprintf(&b, "\n%s\n", x.Message)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
