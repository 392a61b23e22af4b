package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
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
	resp, err := patch(req.Object.Raw, &pod, out)
	if err != nil {
		return w.failOpen(req, fmt.Errorf("make the patch: %w", err))
	}
	w.metrics.admissions.WithLabelValues(string(d.Outcome), string(d.Code)).Inc()
	w.log.Info("looked at a pod", "namespace", req.Namespace, "pod", nameOf(&pod), "outcome", d.Outcome, "reason", d.Reason, "dryRun", req.DryRun != nil && *req.DryRun)
	return resp
}

// patch answers with what makes out of the pod that was sent: what differs
// between the two as this program knows them, so that a field of a newer API is
// never touched.
func patch(raw []byte, pod, out *corev1.Pod) (admission.Response, error) {
	var sent, before, after any
	for _, v := range []struct {
		from any
		to   *any
	}{{json.RawMessage(raw), &sent}, {pod, &before}, {out, &after}} {
		data, err := json.Marshal(v.from)
		if err == nil {
			err = json.Unmarshal(data, v.to)
		}
		if err != nil {
			return admission.Response{}, err
		}
	}
	if reflect.DeepEqual(before, after) {
		return admission.Allowed(""), nil
	}
	patched, err := json.Marshal(merge(sent, before, after))
	if err != nil {
		return admission.Response{}, err
	}
	resp := admission.PatchResponseFromRaw(raw, patched)
	if !resp.Allowed {
		return resp, errors.New(resp.Result.Message)
	}
	return resp, nil
}

// merge applies to a JSON value what changed between two others. An element of a
// list that did not change is found wherever it is now; one that did is taken
// for what stood in its place.
func merge(sent, before, after any) any {
	if reflect.DeepEqual(before, after) {
		return sent
	}
	switch after := after.(type) {
	case map[string]any:
		old, _ := before.(map[string]any)
		out, ok := sent.(map[string]any)
		if !ok {
			return after
		}
		for key := range old {
			if _, ok := after[key]; !ok {
				delete(out, key)
			}
		}
		for key, value := range after {
			if was, ok := old[key]; ok {
				out[key] = merge(out[key], was, value)
			} else {
				out[key] = value
			}
		}
		return out
	case []any:
		old, _ := before.([]any)
		given, _ := sent.([]any)
		if len(old) != len(given) {
			return after
		}
		return mergeList(given, old, after)
	}
	return after
}

func mergeList(sent, before, after []any) []any {
	const none = -1
	from := make([]int, len(after)) // where an element stood
	next := 0
	for i, v := range after {
		from[i] = none
		for j := next; j < len(before); j++ {
			if reflect.DeepEqual(before[j], v) {
				from[i], next = j, j+1
				break
			}
		}
	}
	out := make([]any, len(after))
	for i, v := range after {
		switch {
		case from[i] != none:
			out[i] = sent[from[i]]
		case i < len(before) && !slices.Contains(from, i):
			out[i] = merge(sent[i], before[i], v)
		default:
			out[i] = v
		}
	}
	return out
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
