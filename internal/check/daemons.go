package check

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/installation"
)

func collectors(ctx context.Context, t *Target) ([]string, string) {
	return daemons(ctx, t, installation.Collector)
}

func webhooks(ctx context.Context, t *Target) ([]string, string) {
	return daemons(ctx, t, installation.Webhook)
}

// daemons checks that all pods of a part are ready, and that there are some.
func daemons(ctx context.Context, t *Target, component string) ([]string, string) {
	pods, err := t.found.Pods(ctx, component)
	if err != nil {
		return []string{err.Error()}, "this user must be able to list pods in namespace " + t.found.Namespace
	}
	var details []string
	ready := 0
	for i := range pods {
		if installation.Ready(&pods[i]) {
			ready++
			continue
		}
		details = append(details, fmt.Sprintf("pod %s is not ready: %s", pods[i].Name, why(&pods[i])))
	}
	details = append([]string{fmt.Sprintf("%d of %d pods are ready", ready, len(pods))}, details...)
	switch {
	case len(pods) == 0 && component == installation.Webhook:
		return details, "without a webhook no Falco pod is wired: set webhook.enabled, or replicas, or see kubectl -n " + t.found.Namespace + " get deployments"
	case len(pods) == 0:
		return details, "kubectl -n " + t.found.Namespace + " get deployments"
	case ready < len(pods):
		return details, fmt.Sprintf("kubectl -n %s describe pods -l app.kubernetes.io/component=%s; /readyz on the pod's port named health says what is missing", t.found.Namespace, component)
	}
	return details, ""
}

// why says in Kubernetes' words why a pod is not ready.
func why(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil {
			return w.Reason + " " + w.Message
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Message != "" {
			return c.Message
		}
	}
	return string(p.Status.Phase)
}
