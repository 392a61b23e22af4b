package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/collector/inventory/receiver"
	"github.com/metawire/metawire/internal/wiring"
	ours "github.com/metawire/metawire/migrate/release"
	"github.com/metawire/metawire/tests/falco/plugin"
	"github.com/metawire/metawire/tests/metrics"
)

// everything is the configuration of a collector that does all that there is. It
// authorizes nobody and serves everybody, so that a subscriber of loopback is
// refused and served.
const everything = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
clusterID: test
health: {address: %[1]q}
metrics: {address: %[2]q}
stream:
  enabled: true
  address: %[3]q
  tls: {mode: selfManaged, secret: {namespace: NAMESPACE, name: ca}, dnsNames: [localhost]}
  plaintext: {address: PLAINTEXT}
  authorization: audit
  tickets: {secret: {namespace: NAMESPACE, name: tickets}}
report: {unwiredPods: true}
inventory:
  enabled: true
  endpoint: ENDPOINT
  jitter: 0
  resources: [pods, namespaces]
  state: {namespace: NAMESPACE, lease: inventory, report: inventory-report}
`

// wires is the configuration of a webhook.
const wires = `apiVersion: metawire.dev/v1alpha1
kind: WebhookConfig
health: {address: %q}
metrics: {address: %q}
address: %q
configuration: %[4]s
tls: {mode: selfManaged, secret: {namespace: %[4]s, name: ca}, dnsNames: [localhost]}
stream: {host: metawire-collector.%[4]s.svc, port: 45000, service: {namespace: %[4]s, name: collector}}
image: {name: metawire}
plugin: {reference: ghcr.io/falcosecurity/plugins/plugin/k8smeta}
`

// TestMonitoring: a real Prometheus scrapes the real daemons. Every query of the
// dashboard returns figures, every series that an alert asks for is there, and
// the alerts say what is so.
func TestMonitoring(t *testing.T) {
	ns := newNamespace(t)
	for _, name := range []string{"ca", "tickets"} {
		create(t, &corev1.Secret{ObjectMeta: metadataOf(ns, name)})
	}
	create(t, &corev1.Service{ObjectMeta: metadataOf(ns, "collector"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 45000}}}})
	endpoint := httptest.NewServer(receiver.New(receiver.Options{}))
	t.Cleanup(endpoint.Close)
	plaintext := freeAddress(t)
	replica := func(plaintext string) *collector {
		return started(t, setup{kubeconfig: plane.Kubeconfig(), text: strings.NewReplacer(
			"NAMESPACE", ns, "PLAINTEXT", plaintext, "ENDPOINT", endpoint.URL).Replace(everything)})
	}
	c := replica(plaintext)
	eventually(t, func() error { return holder(t, ns) })
	second := replica(freeAddress(t)) // which does not hold the Lease then
	webhookMetrics := startWebhook(t, ns)
	labels := func(daemon, pod string) map[string]string {
		return map[string]string{"namespace": "metawire", "job": "metawire-" + daemon, "pod": pod}
	}
	rules := renderRules(t)
	p := startPrometheus(t, rules, target{c.metrics, labels("collector", "c-0")}, target{second.metrics, labels("collector", "c-1")}, target{webhookMetrics, labels("webhook", "w-0")})

	holds(t, p, "sum(up)", 3) // else what comes now is no change to Prometheus

	// What the figures are of.
	node := ns + "-a"
	pod := newPod(ns, "pod", node)
	create(t, pod)
	falco := newPod(ns, "falco", node)
	falco.Spec.ServiceAccountName = "default" // no controller sets it here
	falco.Spec.Containers[0].Name, falco.Spec.Containers[0].Image = "falco", "falcosecurity/falco:0.43.1"
	create(t, falco)
	t.Cleanup(func() { // it trusts this test's authority alone, which holds up a change of another
		if err := api.Delete(context.Background(), falco, client.GracePeriodSeconds(0)); err != nil {
			t.Error(err)
		}
	})
	becomeWired(t, falco)
	s := plugin.Start(plugin.Options{Node: node, Kinds: plugin.Kinds(), Target: func() string { return plaintext }})
	t.Cleanup(s.Stop)
	eventually(t, func() error {
		if known := known(s); len(known) == 0 {
			return fmt.Errorf("the subscriber knows nothing yet")
		}
		return nil
	})
	change(t, pod, func(p *corev1.Pod) { p.Labels = map[string]string{"changed": "yes"} })
	clients, err := kubernetes.NewForConfig(apiREST)
	if err != nil {
		t.Fatal(err)
	}
	state := inventory.State{API: clients, Namespace: ns, Lease: "inventory", Report: "inventory-report"}
	eventually(t, func() error { return state.Ask(t.Context(), "now") })

	t.Run("dashboard", func(t *testing.T) { testDashboardReturns(t, p) })
	t.Run("rules", func(t *testing.T) { testRulesReturn(t, p, rules) })
	t.Run("a wired pod that is lost", func(t *testing.T) {
		s.Stop()
		other := plugin.Start(plugin.Options{Node: ns + "-b", Kinds: plugin.Kinds(), Target: func() string { return plaintext }})
		t.Cleanup(other.Stop)
		holds(t, p, "sum(metawire_stream_subscribers)", 1) // as many as wired pods
		holds(t, p, "sum(metawire_falco_pods_connected)", 0)
		holds(t, p, `count(ALERTS{alertname="MetawireFalcoPodsNotConnected",state="wired",alertstate="pending"})`, 1)
	})
	t.Run("another replica holds the Lease", func(t *testing.T) {
		c.signal(t, syscall.SIGTERM)
		c.exit(t, gracePeriod)
		holds(t, p, `sum(metawire_inventory_runs_total{pod="c-1"})`, 0)
		holds(t, p, `metawire_inventory_types{pod="c-1",outcome="ok"}`, 2)
		testPanelsReturn(t, p, "Last complete run", "Types by outcome", "Objects listed", "Duration of the last run")
	})
}

// holder returns nil once somebody holds the Lease of the inventory.
func holder(t *testing.T, ns string) error {
	t.Helper()
	lease := &coordinationv1.Lease{}
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "inventory"}, lease); err != nil {
		return err
	}
	if ptr.Deref(lease.Spec.HolderIdentity, "") == "" {
		return errors.New("nobody holds the Lease")
	}
	return nil
}

// becomeWired has the pod run, as the kubelet would tell, with an init container
// that has wired it.
func becomeWired(t *testing.T, p *corev1.Pod) {
	t.Helper()
	p.Status.Phase = corev1.PodRunning
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: wiring.InitContainer, State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{Message: wiring.Verdict{Wired: true, Ticket: true}.String()},
	}}}
	if err := api.Status().Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// testPanelsReturn: none of the panels is empty, of all if none is named.
func testPanelsReturn(t *testing.T, p *promServer, panels ...string) {
	t.Helper()
	queries, err := metrics.Queries("../../grafana/metawire.json", map[string]string{"namespace": "metawire", "release": "metawire", "__rate_interval": "5m"})
	if err != nil {
		t.Fatal(err)
	}
	if len(queries) == 0 {
		t.Fatal("no queries")
	}
	for _, q := range queries {
		if len(panels) > 0 && !slices.Contains(panels, q.Panel) {
			continue
		}
		eventually(t, func() error {
			figures, err := p.figures(t, q.Expr)
			if err != nil {
				return err
			}
			if len(figures) == 0 {
				return fmt.Errorf("panel %q shows nothing: %s", q.Panel, q.Expr)
			}
			return nil
		})
	}
}

// testDashboardReturns: no panel is empty, and they say what is so.
func testDashboardReturns(t *testing.T, p *promServer) {
	testPanelsReturn(t, p)
	for expr, want := range map[string]float64{
		`sum(metawire_collector_ready)`:                                  2,
		`sum(metawire_webhook_ready)`:                                    1,
		`sum(metawire_legacy_subscribers)`:                               1,
		`sum(metawire_stream_refusals_total{reason="address_loopback"})`: 1,
		`sum(metawire_webhook_admissions_total)`:                         1,
		`sum(metawire_inventory_runs_total{result="complete"})`:          1,
		`sum(metawire_inventory_objects) > bool 0`:                       1,
		// The leader alone tells of the last run.
		`count(count by (pod) (metawire_inventory_types))`:         1,
		`sum(max by (state) (metawire_falco_pods{state="wired"}))`: 1,
		`sum(metawire_falco_pods_connected)`:                       1,
		`min(metawire_certificate_expiry_timestamp_seconds - metawire_certificate_not_before_timestamp_seconds) > bool 7 * 86400 - 7200`: 1,
	} {
		holds(t, p, expr, want)
	}
}

// holds waits until the query returns that figure and no other.
func holds(t *testing.T, p *promServer, query string, want float64) {
	t.Helper()
	eventually(t, func() error {
		figures, err := p.figures(t, query)
		if err == nil && (len(figures) != 1 || figures[0] != want) {
			err = fmt.Errorf("%s is %v, want %v", query, figures, want)
		}
		return err
	})
}

// testRulesReturn: each rule is evaluated, and what it asks for is there.
func testRulesReturn(t *testing.T, p *promServer, rules string) {
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := sigsyaml.Unmarshal([]byte(rules), &file); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			count++
			selected, err := metrics.Selected(r.Expr)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range selected {
				if strings.HasPrefix(s.Metric, "kube_") {
					continue // kube-state-metrics', which is not here
				}
				eventually(t, func() error {
					figures, err := p.figures(t, s.Expr)
					if err == nil && len(figures) == 0 {
						err = fmt.Errorf("%s asks for %s, which is not there", r.Alert, s.Expr)
					}
					return err
				})
			}
		}
	}
	eventually(t, func() error {
		all, err := p.rules(t)
		if err != nil {
			return err
		}
		if len(all) != count {
			return fmt.Errorf("Prometheus has %d rules, want %d", len(all), count)
		}
		for _, r := range all {
			// One of two webhooks runs here, and one subscriber was refused.
			few := r.Name == "MetawireWebhooksTooFew"
			if r.Health != "ok" || few != (r.State == "pending") && (few || r.State == "firing") {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
}

// renderRules are the alerts of a release with everything, as Prometheus reads
// them.
func renderRules(t *testing.T) string {
	t.Helper()
	ch, err := ours.Chart()
	if err != nil {
		t.Fatal(err)
	}
	files, err := renderChart(ch, map[string]any{
		"clusterID": "test", "inventory": map[string]any{"enabled": true, "endpoint": "https://inventory.example"},
		"monitoring": map[string]any{"prometheusRule": map[string]any{"enabled": true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var o struct{ Spec any }
	if err := sigsyaml.Unmarshal([]byte(files["metawire/templates/prometheusrule.yaml"]), &o); err != nil {
		t.Fatal(err)
	}
	text, err := sigsyaml.Marshal(o.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func renderChart(ch *helmchart.Chart, values map[string]any) (map[string]string, error) {
	all, err := chartutil.ToRenderValues(ch, values, chartutil.ReleaseOptions{Name: "metawire", Namespace: "metawire", Revision: 1, IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(ch, all)
}

// startWebhook starts the webhook as the process that users run, which the API
// server calls for pods of the namespace, until the end of the test. It returns
// the address of its metrics once it is ready.
func startWebhook(t *testing.T, ns string) (address string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "webhook")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/metawire/metawire/cmd/webhook").CombinedOutput(); err != nil {
		t.Fatalf("build the webhook: %v: %s", err, out)
	}
	health, address, serves := freeAddress(t), freeAddress(t), freeAddress(t)
	target := "https://" + strings.Replace(serves, "127.0.0.1", "localhost", 1) + "/mutate"
	ignore, none, timeout := admissionv1.Ignore, admissionv1.SideEffectClassNone, int32(10)
	configuration := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.metawire.dev", ClientConfig: admissionv1.WebhookClientConfig{URL: &target}, FailurePolicy: &ignore, SideEffects: &none,
			TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: ns}},
			MatchConditions:   []admissionv1.MatchCondition{{Name: "falco", Expression: "object.spec.containers.exists(c, c.name == 'falco')"}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}
	create(t, configuration)
	t.Cleanup(func() {
		if err := api.Delete(context.WithoutCancel(t.Context()), configuration); err != nil {
			t.Error(err)
		}
	})
	file, logs := filepath.Join(dir, "webhook.yaml"), &log{}
	writeFile(t, file, fmt.Sprintf(wires, health, address, serves, ns))
	cmd := exec.Command(program, "--config", file, "--kubeconfig", plane.Kubeconfig(), "--log-format", "text")
	cmd.Stdout, cmd.Stderr = logs, logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the webhook logged:\n%s", logs)
		}
	})
	eventually(t, func() error {
		if code, body := fetch(t, "http://"+health+"/readyz"); code != http.StatusOK {
			return fmt.Errorf("/readyz answers %d: %s", code, body)
		}
		return nil
	})
	return address
}
