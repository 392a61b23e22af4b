package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/tests/cluster"
	"github.com/metawire/metawire/tests/falco/image"
)

func healthz(port int) *corev1.HTTPGetAction {
	return &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt(port)}
}

func hostNetwork(t *corev1.PodTemplateSpec) { t.Spec.HostNetwork = true }

// wired is what a wired Falco must be like.
type wired struct {
	daemon

	verdict wiring.Verdict // without its reason
	ticket  bool           // sends one
	library string
	tls     bool
}

// variants are Falcos that get their metadata, each in its own way.
func (w *world) variants() []wired {
	ticket := wiring.Verdict{Wired: true, Ticket: true}
	return []wired{
		{daemon{name: "own-network", config: stock}, ticket, true, "0.4.1", true},
		{daemon{name: "host-network", config: stock, port: statePort + 1, change: hostNetwork}, ticket, true, "0.4.1", true},
		// A file of Falco's image, and its stock configuration: nothing is mounted.
		{daemon{name: "stock-image", change: func(t *corev1.PodTemplateSpec) {
			t.Spec.Containers[0].VolumeMounts = nil
			t.Spec.Containers[0].Args = append(t.Spec.Containers[0].Args, "-v")
		}}, ticket, true, "0.4.1", true},
		{daemon{name: "by-hand", config: byHand(collectorHost, 45000, "$${FALCO_K8S_NODE_NAME}", byHandCA), change: trusting},
			wiring.Verdict{StoodDown: true}, false, image.Preinstalled, true},
	}
}

// testWiring: Falcos of a namespace that knows nothing of Metawire are wired when
// they are admitted, and each knows exactly its node's metadata.
func testWiring(t *testing.T, w *world) {
	for _, v := range w.variants() {
		t.Run(v.name, func(t *testing.T) { w.checkWired(t, v) })
	}
	t.Run("another subscriber", func(t *testing.T) { testSubscriber(t, w) })
	t.Run("not Falco", func(t *testing.T) { testNotFalco(t, w) })
	t.Run("counted", func(t *testing.T) { testConnected(t, w) })
}

// testConnected: of all that subscribe, the collectors count those as connected
// that the webhook has wired, in the node's network and in their own; the Falco
// that is configured by hand, and what is no Falco, for none of them.
func testConnected(t *testing.T, w *world) {
	want := 0
	for _, v := range w.variants() {
		if v.verdict.Wired {
			want++
		}
	}
	eventually(t, reportedIn, func(context.Context) error {
		wired := w.sum(t, "collector", `metawire_falco_pods\{state="wired"\}`) / len(w.mustCollectors(t)) // each tells of all
		connected := w.sum(t, "collector", `metawire_falco_pods_connected\{state="wired"\}`)
		subscribers := w.sum(t, "collector", "metawire_stream_subscribers")
		if wired != want || connected != want || subscribers <= want {
			return fmt.Errorf("%d wired pods, %d connected, %d subscribers; want %d, %d and more", wired, connected, subscribers, want, want)
		}
		return nil
	})
}

// checkWired starts a Falco and holds it to what it must be like.
func (w *world) checkWired(t *testing.T, v wired) {
	t.Helper()
	pod := w.start(t, v.daemon)
	verdict, err := w.verdict(t.Context(), falcos, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	reason := verdict.Reason
	if verdict.Reason = ""; verdict != v.verdict {
		t.Errorf("the init container says %+v: %s, want %+v", verdict, reason, v.verdict)
	}
	s := w.exactly(t, v.daemon, pod)
	node, _, ticket := strings.Cut(s.NodeName, "/")
	if node != w.node || ticket != v.ticket || s.Library != v.library || s.TLS != v.tls {
		t.Errorf("node %q, ticket %t, library %q, TLS %t; want %+v", node, ticket, s.Library, s.TLS, v)
	}
	if len(s.Ends) > 0 {
		t.Errorf("it took more than one stream: %s", ended(s))
	}
}

// testSubscriber: a pod that asks for it gets what it needs in its environment.
func testSubscriber(t *testing.T, w *world) {
	d := daemon{
		name: "subscriber", config: byHand(collectorHost, 45000, "$${METAWIRE_NODE_NAME}", "${METAWIRE_CA_FILE}"),
		change: func(t *corev1.PodTemplateSpec) {
			t.Annotations = map[string]string{wiring.InjectAnnotation: "true"}
			t.Spec.Containers[0].Name, t.Spec.Containers[0].Image = "client", image.Client
		},
	}
	pod := w.start(t, d)
	if s := w.exactly(t, d, pod); !s.TLS {
		t.Error("it has not found the authority")
	}
	for _, e := range pod.Spec.Containers[0].Env {
		if e.Name == "METAWIRE_ENDPOINT" && e.Value == collectorHost+":45000" {
			return
		}
	}
	t.Errorf("METAWIRE_ENDPOINT is not %s:45000 in %v", collectorHost, pod.Spec.Containers[0].Env)
}

// testNotFalco: other pods never reach the webhook.
func testNotFalco(t *testing.T, w *world) {
	before := w.admissions(t)
	made, err := w.api.CoreV1().Pods(falcos).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "not-falco", Namespace: falcos},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: cluster.PauseImage}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, looked := made.Annotations[wiring.StatusAnnotation]; looked || w.admissions(t) != before {
		t.Errorf("a pod that is not Falco reached the webhook: %d pods before, %d after", before, w.admissions(t))
	}
}

// admissions returns how many pods the webhooks have looked at.
func (w *world) admissions(t *testing.T) int {
	t.Helper()
	return w.sum(t, "webhook", `metawire_webhook_admissions_total\{[^}]*\}`)
}

// sum adds up the series of all ready pods of a component that match.
func (w *world) sum(t *testing.T, component, series string) (total int) {
	t.Helper()
	pods, err := w.pods(t.Context(), namespace, "app.kubernetes.io/component="+component)
	if err != nil {
		t.Fatal(err)
	}
	pattern := regexp.MustCompile(`(?m)^` + series + ` (\S+)$`)
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		metrics, err := get(t.Context(), p, 8080, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pattern.FindAllStringSubmatch(metrics, -1) {
			n, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			total += int(n)
		}
	}
	return total
}

// verdict returns what the init container of a pod says.
func (w *world) verdict(ctx context.Context, ns, name string) (wiring.Verdict, error) {
	p, err := w.api.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return wiring.Verdict{}, err
	}
	for _, c := range p.Status.InitContainerStatuses {
		if c.Name == wiring.InitContainer && c.State.Terminated != nil {
			return wiring.ParseVerdict(c.State.Terminated.Message)
		}
	}
	return wiring.Verdict{}, fmt.Errorf("%w: %+v, annotations %v", errNoVerdict, p.Status.InitContainerStatuses, p.Annotations)
}

var errNoVerdict = errors.New("the init container has not ended")
