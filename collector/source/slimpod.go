package source

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

// Field numbers of a Pod's messages, as in slim.go.
const (
	podSpec   protowire.Number = 2
	podStatus protowire.Number = 3

	specContainers  protowire.Number = 2
	specNodeName    protowire.Number = 10
	specHostNetwork protowire.Number = 11

	containerName  protowire.Number = 1
	containerImage protowire.Number = 2

	statusPhase  protowire.Number = 1
	statusPodIP  protowire.Number = 6
	statusInit   protowire.Number = 10
	statusPodIPs protowire.Number = 12
	podIPAddress protowire.Number = 1

	initName protowire.Number = 1 // of a ContainerStatus
)

// maxMessage is as much of a termination message as the kubelet passes on.
const maxMessage = 4096

// slimPod is a Pod.
type slimPod struct {
	slimMeta
	node, ip                              string
	more                                  []string // its addresses but for ip
	hostNetwork, running, finished, falco bool
	wired                                 bool         // the status names our init container
	init                                  *wiring.Init // how far that is, nil if it is not named
}

// Reset implements message.
func (p *slimPod) Reset() { *p = slimPod{} }

// Unmarshal implements message.
func (p *slimPod) Unmarshal(b []byte) error {
	var status []byte
	err := p.decode(b, func(n protowire.Number, v []byte) error {
		switch n {
		case podSpec:
			return fields(v, p.spec)
		case podStatus:
			status = v
			return fields(v, p.status)
		}
		return nil
	})
	if err != nil || !p.wired {
		return err
	}
	// Wired pods are few: of those the whole status is decoded.
	var whole corev1.PodStatus
	if err := whole.Unmarshal(status); err != nil {
		return err
	}
	init := wiring.InitOf(p.CreationTimestamp.Time, &whole)
	init.Message = strings.Clone(init.Message[:min(len(init.Message), maxMessage)])
	p.init = &init
	return nil
}

// spec reads one field of the spec.
func (p *slimPod) spec(n protowire.Number, v []byte) (err error) {
	switch n {
	case specNodeName:
		p.node = string(v)
	case specHostNetwork:
		p.hostNetwork = flag(v)
	case specContainers:
		if !p.falco {
			p.falco, err = isFalco(v)
		}
	}
	return err
}

// status reads one field of the status.
func (p *slimPod) status(n protowire.Number, v []byte) error {
	switch n {
	case statusPhase:
		p.running = string(v) == string(corev1.PodRunning)
		p.finished = string(v) == string(corev1.PodSucceeded) || string(v) == string(corev1.PodFailed)
	case statusPodIP:
		p.ip = string(v)
	case statusPodIPs:
		ip, err := raw(v, podIPAddress)
		if string(ip) != p.ip {
			p.more = append(p.more, string(ip))
		}
		return err
	case statusInit:
		name, err := raw(v, initName)
		p.wired = p.wired || string(name) == wiring.InitContainer
		return err
	}
	return nil
}

// isFalco reads no more of a container than its name and image, which come
// first, and makes strings of them only where it may be Falco.
func isFalco(b []byte) (bool, error) {
	var name, image []byte
	for len(b) > 0 && (name == nil || image == nil) {
		n, v, rest, err := next(b)
		if err != nil {
			return false, err
		}
		switch n {
		case containerName:
			name = v
		case containerImage:
			image = v
		}
		b = rest
	}
	if !bytes.Contains(name, []byte("falco")) && !bytes.Contains(image, []byte("falco")) {
		return false, nil
	}
	return falco.Is(string(name), string(image)), nil
}

// flag reads a flag.
func flag(v []byte) bool {
	x, _ := protowire.ConsumeVarint(v)
	return x != 0
}

// DeepCopyObject implements runtime.Object.
func (p *slimPod) DeepCopyObject() runtime.Object {
	c := *p
	p.DeepCopyInto(&c.ObjectMeta)
	c.more = slices.Clone(p.more)
	if p.init != nil {
		init := *p.init
		c.init = &init
	}
	return &c
}

// place is what the roster needs of a pod besides its relation.Object. Nearly
// all pods are nothing but a place.
type place struct {
	addresses             []netip.Addr
	hostNetwork, finished bool
	created               int64       // in seconds
	marked                *roster.Pod // the whole pod, if more of it is of interest
}

// place returns where the pod is.
func (p *slimPod) place() place {
	at := place{hostNetwork: p.hostNetwork, finished: p.finished, created: p.CreationTimestamp.Unix()}
	if a, err := netip.ParseAddr(p.ip); err == nil {
		at.addresses = []netip.Addr{a}
	}
	for _, text := range p.more {
		if a, err := netip.ParseAddr(text); err == nil && text != p.ip {
			at.addresses = append(at.addresses, a)
		}
	}
	inject, status := p.Annotations[wiring.InjectAnnotation], p.Annotations[wiring.StatusAnnotation]
	if p.falco || inject == "true" || status != "" || p.init != nil {
		at.marked = p.whole(inject, status)
	}
	return at
}

// whole returns all that the roster holds of a pod, but for its place.
func (p *slimPod) whole(inject, status string) *roster.Pod {
	w := &roster.Pod{
		Falco: p.falco, OptedIn: inject == "true", OptedOut: inject == "false", Running: p.running,
	}
	if s, err := wiring.ParseStatus(status); err == nil { // else it is not the webhook's
		w.Status = &s
	}
	if p.init != nil {
		w.Init = *p.init
	}
	if c := metav1.GetControllerOfNoCopy(p); c != nil {
		w.Owner = wiring.Owner{Kind: c.Kind, Name: c.Name}
	}
	return w
}

// pod puts the roster's pod together.
func (p *place) pod(o *relation.Object) roster.Pod {
	var whole roster.Pod
	if p.marked != nil {
		whole = *p.marked
		whole.Namespace, whole.Name = o.Namespace, o.Name
	}
	whole.UID, whole.Node, whole.Addresses = o.UID, o.Node, p.addresses
	whole.HostNetwork, whole.Finished, whole.Created = p.hostNetwork, p.finished, time.Unix(p.created, 0)
	return whole
}
