package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/version"
	"github.com/metawire/metawire/internal/wiring"
)

// dropped is how long a call takes at least that nobody answers: the API server
// waits 3 s for the webhook.
const dropped = 2500 * time.Millisecond

// canary asks the API server what it would make of a Falco pod. It shows the
// whole way: registration, network, certificate, webhook. Nothing is created.
func canary(ctx context.Context, t *Target) finding {
	namespace, err := t.canaryNamespace(ctx)
	if err != nil {
		return unread(err, "list namespaces, pods and mutatingwebhookconfigurations")
	}
	if namespace == "" {
		return skip("the webhook sees no namespace that there is: see the check of the registration, and the value webhook.namespaceSelector")
	}
	var status *wiring.Status
	var took time.Duration
	for range 2 { // one call may fail by chance, as when a pod is just going
		began := time.Now()
		made, err := t.found.Client().CoreV1().Pods(namespace).Create(ctx, falco.Canary(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return warn(fmt.Sprintf("what the message names refuses the pod, or you may not create pods in namespace %s: whether one is wired cannot be told from here", namespace), err.Error())
		}
		took = time.Since(began)
		if s, err := wiring.ParseStatus(made.Annotations[wiring.StatusAnnotation]); err == nil {
			status = &s
			break
		}
	}
	switch {
	case status == nil:
		return t.unanswered(namespace, took)
	case status.Outcome != wiring.Wired:
		return fail("the webhooks' log says more: "+t.logs(installation.Webhook),
			fmt.Sprintf("a Falco pod in namespace %s would not be wired (%s): %s", namespace, status.Outcome, status.Reason))
	case isOther(status.Version, t.found.Version):
		return fail(t.reinstall(), fmt.Sprintf("a webhook of version %s answers, the release is %s", status.Version, t.found.Version))
	}
	return fine(fmt.Sprintf("a Falco pod in namespace %s would be wired (%s)", namespace, took.Round(time.Millisecond)))
}

// unanswered says why no webhook has looked at the canary. The API server says it
// to nobody: failurePolicy is Ignore.
func (t *Target) unanswered(namespace string, took time.Duration) finding {
	detail := fmt.Sprintf("the API server admits a Falco pod in namespace %s without the webhook having seen it (after %s)", namespace, took.Round(time.Millisecond))
	for _, c := range t.failed {
		if slices.Contains([]string{"webhooks", "webhook-service", "network-policies", "authorities", "webhook-certificate", "registration"}, c.id) {
			return fail(fmt.Sprintf("in the way is most likely what failed above: %q", c.name), detail)
		}
	}
	if took > dropped {
		return fail("the webhooks are well, but the API server gets no answer from them: let the control plane reach their port in firewalls and NetworkPolicies, "+
			"or set webhook.hostNetwork where it reaches no pod addresses", detail)
	}
	return fail("the webhooks are well, but the API server cannot call them: does it reach Services and pods (kube-proxy, konnectivity, a proxy in its environment)? Its log says why, at \"failed calling webhook\"", detail)
}

// isOther reports whether a version is known to be another one.
func isOther(is, than string) bool {
	return is != version.Dev && than != version.Dev && strings.TrimPrefix(is, "v") != strings.TrimPrefix(than, "v")
}

// canaryNamespace chooses one whose pods the webhook sees: where Falco is, else
// default, else any; "" if there is none.
func (t *Target) canaryNamespace(ctx context.Context) (string, error) {
	seen, err := seenNamespaces(ctx, t)
	if err != nil {
		return "", err
	}
	falcos, err := t.falcos(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range falcos {
		if seen[p.Namespace] {
			return p.Namespace, nil
		}
	}
	if seen[metav1.NamespaceDefault] {
		return metav1.NamespaceDefault, nil
	}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if seen[name] && name != t.found.Namespace {
			return name, nil
		}
	}
	if seen[t.found.Namespace] {
		return t.found.Namespace, nil
	}
	return "", nil
}
