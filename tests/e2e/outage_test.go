package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/wiring"
)

// reportedIn is how soon unwired pods must be reported once the webhook is back.
const reportedIn = time.Minute

// testOutage: while no webhook runs, Falco is admitted and starts; unwired, and
// reported. Made again, it is wired.
func testOutage(t *testing.T, w *world) {
	const webhook = "metawire-webhook"
	w.patchDeployment(t, namespace, webhook, `{"spec":{"replicas":0}}`)
	d := daemon{name: "unlucky", config: stock}
	pod := w.start(t, d)
	if s, err := d.state(t.Context(), pod); err != nil || s.Loaded || pod.Annotations[wiring.StatusAnnotation] != "" {
		t.Errorf("want an unwired Falco, got %+v, %v, annotations %v", s, err, pod.Annotations)
	}
	w.patchDeployment(t, namespace, webhook, `{"spec":{"replicas":2}}`)
	took := eventually(t, reportedIn, func(ctx context.Context) error {
		events, err := w.api.CoreV1().Events(falcos).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID) + ",reason=" + string(wiring.ReasonNotWired)})
		if err != nil {
			return err
		}
		if len(events.Items) != 1 { // though there are two collectors
			return fmt.Errorf("%d events", len(events.Items))
		}
		if e := events.Items[0]; e.Type != corev1.EventTypeWarning || !strings.Contains(e.Message, "rollout restart daemonset/unlucky") {
			t.Errorf("the Event does not say what to do: %s %s", e.Type, e.Message)
		}
		return nil
	})
	t.Logf("reported %s after the webhook was back", took.Round(time.Millisecond))
	if n := w.sum(t, "collector", `metawire_falco_pods\{state="unwired"\}`); n != len(w.mustCollectors(t)) {
		t.Errorf("the collectors count %d unwired pods together, want one each", n)
	}
	if out, code := w.metawire(t, "check"); code != 2 || !strings.Contains(out, falcos+"/"+pod.Name) {
		t.Errorf("metawire check ended with %d:\n%s", code, out)
	}
	if err := w.api.CoreV1().Pods(falcos).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, started, func(ctx context.Context) error {
		pods, err := w.pods(ctx, falcos, d.selector())
		if err == nil && (len(pods) != 1 || pods[0].UID == pod.UID) {
			err = fmt.Errorf("the pod is not replaced yet")
		}
		return err
	})
	w.exactly(t, d, w.falcoPod(t, d))
	w.remove(t, d)
}
