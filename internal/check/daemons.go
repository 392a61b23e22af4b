package check

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/metawire/metawire/internal/installation"
)

func collectors(ctx context.Context, t *Target) finding {
	return daemons(ctx, t, installation.Collector, "nobody streams")
}

func webhooks(ctx context.Context, t *Target) finding {
	return daemons(ctx, t, installation.Webhook, "Falco pods that are made now run unwired")
}

// daemons checks that all pods of a part are ready, and that there are as many as
// there should be. else says what it means that there is none.
func daemons(ctx context.Context, t *Target, component, otherwise string) finding {
	ns := t.found.Namespace
	list, err := t.found.Client().AppsV1().Deployments(ns).List(ctx, t.found.Only(component))
	if err != nil {
		return unread(err, "list deployments in namespace "+ns)
	}
	if len(list.Items) == 0 {
		return fail(t.reinstall(), fmt.Sprintf("there is no Deployment of the %s: %s", component, otherwise))
	}
	d := &list.Items[0]
	if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		return fail(fmt.Sprintf("kubectl -n %s scale deployment/%s --replicas=2", ns, d.Name), fmt.Sprintf("Deployment %s is scaled to zero: %s", d.Name, otherwise))
	}
	pods, err := t.found.Pods(ctx, component)
	if err != nil {
		return unread(err, "list pods in namespace "+ns)
	}
	var causes []cause
	ready, comes := 0, true
	for i := range pods {
		if installation.Ready(&pods[i]) {
			ready++
			continue
		}
		c := t.whyNotReady(ctx, &pods[i])
		comes = comes && c.comes
		c.text = fmt.Sprintf("pod %s is not ready: %s", pods[i].Name, c.text)
		causes = append(causes, c)
	}
	if c := stuck(d); c.text != "" {
		causes, comes = append(causes, c), false
	}
	want := int(*d.Spec.Replicas)
	details := []string{fmt.Sprintf("%d of %d pods are ready", ready, want)}
	if len(causes) == 0 && ready < want {
		causes = append(causes, cause{text: fmt.Sprintf("%d of %d pods were made", len(pods), want), hint: fmt.Sprintf("kubectl -n %s describe replicasets says why no more are made", ns)})
		comes = rolls(d)
	}
	for _, c := range causes {
		details = append(details, c.text)
	}
	switch {
	case len(causes) > 0 && comes && ready > 0:
		return warn(fmt.Sprintf("others serve meanwhile; look again in a minute, or: kubectl -n %s rollout status deployment/%s", ns, d.Name), details...)
	case len(causes) > 0:
		return fail(hints(causes), details...)
	}
	if c := crashed(pods, t.Now); c.text != "" {
		return warn(c.hint, append(details, c.text)...)
	}
	return fine(details...)
}

// patient is how long a pod may take to come before that is a fault.
const patient = 2 * time.Minute

// hints are what to do about all causes, each once.
func hints(causes []cause) string {
	var all []string
	seen := map[string]bool{}
	for _, c := range causes {
		if !seen[c.hint] {
			seen[c.hint] = true
			all = append(all, c.hint)
		}
	}
	return strings.Join(all, "; ")
}

// stuck says why a Deployment has not the pods that it should have, in
// Kubernetes' words: a quota, a policy, a rollout that does not come forward.
func stuck(d *appsv1.Deployment) cause {
	for _, c := range d.Status.Conditions {
		switch {
		case c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue:
			return cause{
				text: fmt.Sprintf("Deployment %s cannot make pods: %s", d.Name, c.Message),
				hint: fmt.Sprintf("what the message names refuses the pods: a quota, Pod Security, a policy, another webhook, or something that is not there. Once that is mended it may be minutes until they are tried again: kubectl -n %s rollout restart deployment/%s", d.Namespace, d.Name),
			}
		case c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse:
			return cause{text: fmt.Sprintf("Deployment %s does not come forward: %s", d.Name, c.Message), hint: fmt.Sprintf("kubectl -n %s rollout status deployment/%s", d.Namespace, d.Name)}
		}
	}
	if d.Spec.Paused {
		return cause{text: fmt.Sprintf("the rollout of Deployment %s is paused", d.Name), hint: fmt.Sprintf("kubectl -n %s rollout resume deployment/%s", d.Namespace, d.Name)}
	}
	return cause{}
}

// whyNotReady is why a pod is not, with what its events, its log or itself say
// where its status does not.
func (t *Target) whyNotReady(ctx context.Context, p *corev1.Pod) cause {
	c, ask := podCause(p)
	young := t.Now.Sub(p.CreationTimestamp.Time) < patient
	switch ask {
	case askEvents:
		m := t.lastWarning(ctx, p)
		if m != "" {
			c.text += ": " + m
		}
		c.comes = young && m == ""
	case askLog:
		if m := t.lastWords(ctx, p, p.Labels["app.kubernetes.io/component"]); m != "" {
			c.text += "; it said last: " + m
		}
	case askItself:
		if page, err := t.found.Page(ctx, p, "health", "/readyz"); err == nil && page.Status != http.StatusOK {
			said := strings.Join(strings.FieldsFunc(string(page.Body), func(r rune) bool { return r == '\n' }), "; ")
			c.text += ": " + said
			c.comes = young || said == "ending" // to start anew
		}
	case askNobody:
	}
	return c
}

// lastWarning is the last Event of a pod that warns.
func (t *Target) lastWarning(ctx context.Context, p *corev1.Pod) string {
	events, err := t.found.Client().CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.uid": string(p.UID), "type": corev1.EventTypeWarning}.String(),
	})
	if err != nil {
		return ""
	}
	var at time.Time
	message := ""
	for _, e := range events.Items {
		if when := e.LastTimestamp.Time; message == "" || when.After(at) {
			at, message = when, e.Message
		}
	}
	return message
}

// lastWords is the last line of the log of a pod's container before its last end.
func (t *Target) lastWords(ctx context.Context, p *corev1.Pod, container string) string {
	lines := int64(1)
	for _, previous := range []bool{true, false} {
		log, err := t.found.Client().CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container, TailLines: &lines, Previous: previous}).DoRaw(ctx)
		if text := strings.TrimSpace(string(log)); err == nil && text != "" {
			return text
		}
	}
	return ""
}
