package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metawire/metawire/webhook/inject"
)

// Handle implements admission.Handler. It asks nobody, and whatever goes wrong,
// the pod is admitted as it is: nothing here is worth a Falco that does not
// start.
func (w *Webhook) Handle(_ context.Context, req admission.Request) (resp admission.Response) {
	began := time.Now()
	defer func() {
		if r := recover(); r != nil {
			resp = w.failOpen(req, fmt.Errorf("panic: %v", r))
		}
		w.metrics.duration.Observe(time.Since(began).Seconds())
	}()
	var pod corev1.Pod
	if err := json.Unmarshal(req.Object.Raw, &pod); err != nil {
		return w.failOpen(req, fmt.Errorf("decode the pod: %w", err))
	}
	settings := w.settings.Load()
	if settings == nil {
		return w.failOpen(req, errNotReady)
	}
	out, d := w.inject(&pod, *settings)
	patched, err := json.Marshal(out)
	if err != nil {
		return w.failOpen(req, fmt.Errorf("encode the pod: %w", err))
	}
	w.metrics.admissions.WithLabelValues(string(d.Outcome), string(d.Code)).Inc()
	w.log.Info("looked at a pod", "namespace", req.Namespace, "pod", nameOf(&pod), "outcome", d.Outcome, "reason", d.Reason, "dryRun", req.DryRun != nil && *req.DryRun)
	if d.Code == inject.Before {
		return admission.Allowed(d.Reason)
	}
	return admission.PatchResponseFromRaw(req.Object.Raw, patched)
}

// failOpen admits a pod as it is.
func (w *Webhook) failOpen(req admission.Request, err error) admission.Response {
	w.metrics.failures.Inc()
	w.log.Error("admitted a pod as it is", "namespace", req.Namespace, "pod", req.Name, "error", err)
	resp := admission.Allowed("")
	resp.Warnings = []string{"metawire: this pod is not wired: " + err.Error()}
	resp.Result.Code = http.StatusOK
	return resp
}

// nameOf is the pod's name, or what its name will begin with.
func nameOf(pod *corev1.Pod) string {
	if pod.Name == "" {
		return pod.GenerateName + "*"
	}
	return pod.Name
}
