package check

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

// unmet says which matchConditions keep the API server from calling a webhook for
// a Falco pod. It tells nothing of one that takes what only the API server knows.
func unmet(h *admissionv1.MutatingWebhook, namespace string, falcos []corev1.Pod) (all []string) {
	// A pod that there is knows more than one that is made up: labels, for one.
	like, real := falco.Canary(), false
	for i := range falcos {
		if p := &falcos[i]; p.Namespace == namespace && p.Annotations[wiring.InjectAnnotation] != "false" {
			like, real = p, true
			break
		}
	}
	like = like.DeepCopy()
	like.Namespace = namespace
	pod, err := runtime.DefaultUnstructuredConverter.ToUnstructured(like)
	if err != nil {
		return nil
	}
	for _, m := range h.MatchConditions {
		switch called, err := holds(m.Expression, pod, namespace); {
		case err != nil && !real:
		case err != nil:
			all = append(all, fmt.Sprintf("webhook %s is not called for a Falco pod in namespace %s: its matchCondition %s (%s) fails: %v", h.Name, namespace, m.Name, m.Expression, err))
		case !called:
			all = append(all, fmt.Sprintf("webhook %s is not called for a Falco pod in namespace %s: its matchCondition %s (%s) is not so for one", h.Name, namespace, m.Name, m.Expression))
		}
	}
	return all
}

// holds evaluates an expression as the API server does, for a pod that is created in
// the namespace; one with other variables, or with functions of Kubernetes' own, holds.
func holds(expression string, object map[string]any, namespace string) (bool, error) {
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType), cel.Variable("request", cel.DynType), cel.OptionalTypes())
	if err != nil {
		return false, err
	}
	compiled, issues := env.Compile(expression)
	if issues.Err() != nil {
		return true, nil //nolint:nilerr // the API server has compiled it: it knows more
	}
	program, err := env.Program(compiled)
	if err != nil {
		return false, err
	}
	pods := map[string]any{"group": "", "version": "v1", "resource": "pods"}
	result, _, err := program.Eval(map[string]any{"object": object, "request": map[string]any{
		"namespace": namespace, "operation": "CREATE", "kind": map[string]any{"group": "", "version": "v1", "kind": "Pod"}, "resource": pods, "requestResource": pods, "subResource": "",
	}})
	if err != nil && strings.Contains(expression, "request.") {
		return true, nil // of more than is known here, such as who asks
	}
	if err != nil {
		return false, err
	}
	yes, ok := result.Value().(bool)
	return ok && yes, nil
}
