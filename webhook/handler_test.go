package webhook

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

// newHandler returns a webhook that can answer, and no more.
func newHandler(t testing.TB) *Webhook {
	t.Helper()
	w := &Webhook{log: slog.New(slog.DiscardHandler), metrics: NewMetrics(prometheus.NewRegistry()), inject: inject.Pod}
	w.settings.Store(&inject.Settings{Host: "metawire-collector.metawire.svc", Port: 45000, CA: []byte("x"), Image: "metawire:1"})
	return w
}

func request(t testing.TB, pod *corev1.Pod) admission.Request {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{UID: "1", Namespace: "falco", Object: runtime.RawExtension{Raw: raw}}}
}

func falcoPod() *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "falco", Image: "falcosecurity/falco:0.43.1"}}}}
}

func TestHandleWires(t *testing.T) {
	w := newHandler(t)
	resp := w.Handle(t.Context(), request(t, falcoPod()))
	if !resp.Allowed || len(resp.Patches) == 0 {
		t.Fatalf("got %+v", resp)
	}
	patch, err := json.Marshal(resp.Patches)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{wiring.InitContainer, wiring.FragmentFile, "metawire.dev~1status"} {
		if !strings.Contains(string(patch), want) && !strings.Contains(string(patch), strings.ReplaceAll(want, "~1", "/")) {
			t.Errorf("the patch lacks %s: %s", want, patch)
		}
	}
	if n := testutil.ToFloat64(w.metrics.admissions.WithLabelValues("wired", "done")); n != 1 {
		t.Errorf("counted %v", n)
	}
}

// TestHandleFailsOpen: whatever goes wrong, the pod is admitted as it is.
func TestHandleFailsOpen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Webhook, *admission.Request)
		want   string
	}{
		"no pod": {func(_ *Webhook, r *admission.Request) { r.Object.Raw = []byte(`{"spec":7}`) }, "decode the pod"},
		"panic": {func(w *Webhook, _ *admission.Request) {
			w.inject = func(*corev1.Pod, inject.Settings) (*corev1.Pod, inject.Decision) { panic("oops") } //nolint:forbidigo // what is tested
		}, "oops"},
		"not started in full": {func(w *Webhook, _ *admission.Request) { w.settings.Store(nil) }, "authority"},
	} {
		t.Run(name, func(t *testing.T) {
			w, r := newHandler(t), request(t, falcoPod())
			c.change(w, &r)
			resp := w.Handle(t.Context(), r)
			if !resp.Allowed || len(resp.Patches) > 0 {
				t.Errorf("got %+v", resp)
			}
			if got := strings.Join(resp.Warnings, " "); !strings.Contains(got, c.want) {
				t.Errorf("the warning is %q, want %q in it", got, c.want)
			}
			if n := testutil.ToFloat64(w.metrics.failures); n != 1 {
				t.Errorf("counted %v failures", n)
			}
		})
	}
}

func BenchmarkAdmission(b *testing.B) {
	w, r := newHandler(b), request(b, falcoPod())
	b.ReportAllocs()
	for b.Loop() {
		if resp := w.Handle(b.Context(), r); !resp.Allowed {
			b.Fatal(resp)
		}
	}
}
