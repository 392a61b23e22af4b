package check

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metawire/metawire/internal/installation"
)

func collectorService(ctx context.Context, t *Target) finding {
	s, bad := t.service(ctx, installation.Collector)
	if s == nil {
		return bad
	}
	_, port, _ := strings.Cut(t.config.Stream.Address, ":")
	// Pods that were wired go on with the port that they were given.
	wired, err := t.webhookConfiguration(ctx)
	if err == nil && wired.Stream.Port != 0 && t.found.Port != 0 && t.found.Port != wired.Stream.Port {
		return fail(replace(s, "port", wired.Stream.Port, "grpc"), fmt.Sprintf("Falco pods are wired to port %d, and Service %s has port %d", wired.Stream.Port, s.Name, t.found.Port))
	}
	return t.leads(ctx, s, installation.Collector, "grpc", port)
}

func webhookService(ctx context.Context, t *Target) finding {
	s, bad := t.service(ctx, installation.Webhook)
	if s == nil {
		return bad
	}
	return t.leads(ctx, s, installation.Webhook, "https", "")
}

// service returns a part's Service, or what is wrong.
func (t *Target) service(ctx context.Context, component string) (*corev1.Service, finding) {
	ns := t.found.Namespace
	list, err := t.found.Client().CoreV1().Services(ns).List(ctx, t.found.Only(component))
	if err != nil {
		return nil, unread(err, "list services in namespace "+ns)
	}
	if len(list.Items) == 0 {
		return nil, fail(t.reinstall(), fmt.Sprintf("there is no Service of the %s", component))
	}
	return &list.Items[0], finding{}
}

// leads reads what belongs to a Service. What is wrong is looked at twice: pods and
// endpoints are not of one moment.
func (t *Target) leads(ctx context.Context, s *corev1.Service, component, port, listens string) (f finding) {
	for range 2 {
		if f.outcome == Failed {
			select {
			case <-ctx.Done():
				return f
			case <-time.After(settling):
			}
		}
		pods, err := t.found.Pods(ctx, component)
		if err != nil {
			return unread(err, "list pods in namespace "+s.Namespace)
		}
		parts, err := t.found.Client().DiscoveryV1().EndpointSlices(s.Namespace).List(ctx, metav1.ListOptions{
			LabelSelector: labels.Set{discoveryv1.LabelServiceName: s.Name}.String(),
		})
		if err != nil {
			return unread(err, "list endpointslices in namespace "+s.Namespace)
		}
		if f = leadsTo(s, port, listens, pods, parts.Items); f.outcome != Failed {
			return f
		}
	}
	if f.hint == "" {
		f.hint = t.reinstall()
	}
	return f
}

// settling is how long endpoints may be behind their pods.
const settling = 2 * time.Second

// leadsTo judges where a port of a Service leads: to pods, and to the port on
// which they listen. listens is a number if it is known from elsewhere. A
// failure without a hint is one of the Service.
func leadsTo(s *corev1.Service, name, listens string, pods []corev1.Pod, parts []discoveryv1.EndpointSlice) finding {
	var port *corev1.ServicePort
	for i := range s.Spec.Ports {
		if s.Spec.Ports[i].Name == name {
			port = &s.Spec.Ports[i]
		}
	}
	if port == nil {
		return fail("", fmt.Sprintf("Service %s has no port named %s", s.Name, name))
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	ours := map[types.UID]bool{}
	for i := range pods {
		p := &pods[i]
		ours[p.UID] = true
		if len(s.Spec.Selector) == 0 { // which is nothing, and not everything
			return fail(reselect(s, p), fmt.Sprintf("Service %s has no selector", s.Name))
		}
		if !selector.Matches(labels.Set(p.Labels)) {
			return fail(reselect(s, p), fmt.Sprintf("Service %s does not select pod %s: its selector is %s", s.Name, p.Name, selector))
		}
		if want, err := installation.PortOf(p, name); err == nil && (listens == "" || listens == strconv.Itoa(want)) {
			listens = strconv.Itoa(want)
			if to := targetOf(port, p); to != want {
				return fail(replace(s, "targetPort", name, name), fmt.Sprintf("port %d of Service %s leads to port %s of pod %s, which listens on %d", port.Port, s.Name, port.TargetPort.String(), p.Name, want))
			}
		}
	}
	ready := map[types.UID]bool{} // a pod of two families is in two slices
	for _, slice := range parts {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			if e.TargetRef == nil || !ours[e.TargetRef.UID] {
				return fail("what is not of the release must not be in it: kubectl -n "+s.Namespace+" delete endpointslice "+slice.Name+", or correct the Service's selector",
					fmt.Sprintf("Service %s leads to %s as well, which is none of the release's pods (EndpointSlice %s)", s.Name, strings.Join(e.Addresses, " "), slice.Name))
			}
			for _, p := range slice.Ports {
				if p.Name != nil && *p.Name == name {
					ready[e.TargetRef.UID] = true
				}
			}
		}
	}
	if len(ready) == 0 {
		return fail("see the check of the pods: an endpoint comes when one is ready", fmt.Sprintf("Service %s has no endpoints that are ready", s.Name))
	}
	return fine(fmt.Sprintf("Service %s, port %d, leads to ready pods: %d", s.Name, port.Port, len(ready)))
}

// replace says how to write a field of a Service's port anew. An upgrade would not: it
// takes what somebody wrote for what he wants, or for a second port; and a Service that
// is deleted comes back with another address, which wired pods do not know.
func replace(s *corev1.Service, field string, value any, port string) string {
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == port })
	if i < 0 {
		return ""
	}
	return patchService(s, fmt.Sprintf("/spec/ports/%d/%s", i, field), value)
}

// reselect says how to give a Service its selector again: what the chart selects by.
func reselect(s *corev1.Service, p *corev1.Pod) string {
	selector := map[string]string{}
	for _, key := range []string{"app.kubernetes.io/component", "app.kubernetes.io/instance", "app.kubernetes.io/name"} {
		selector[key] = p.Labels[key]
	}
	return patchService(s, "/spec/selector", selector)
}

// patchService writes a value in the place of what may be there: add does that in an
// object.
func patchService(s *corev1.Service, path string, value any) string {
	text, _ := json.Marshal([]any{map[string]any{"op": "add", "path": path, "value": value}}) // strings and numbers
	return fmt.Sprintf("kubectl -n %s patch service %s --type=json -p '%s'", s.Namespace, s.Name, text)
}

// targetOf is the port of a pod that a Service's port leads to, 0 if it leads
// nowhere.
func targetOf(port *corev1.ServicePort, p *corev1.Pod) int {
	switch {
	case port.TargetPort.Type == intstr.String:
		n, _ := installation.PortOf(p, port.TargetPort.StrVal) // 0 is nowhere
		return n
	case port.TargetPort.IntVal != 0:
		return int(port.TargetPort.IntVal)
	}
	return int(port.Port)
}
