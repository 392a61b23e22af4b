package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/collector/inventory/receiver"
	"github.com/metawire/metawire/tests/oldcharts"
)

// testMigrateFailures: what fails before the removal is undone, and the old
// release works.
func testMigrateFailures(t *testing.T, w *world) {
	const old = "failing"
	w.installOld(t, oldcharts.Metacollector, old, falcos, oldStream())
	service := old + "-k8s-metacollector"
	d := daemon{name: "legacy", config: byHand(service+"."+falcos+".svc", 45000, "${FALCO_K8S_NODE_NAME}", "")}
	pod := w.start(t, d)
	w.exactly(t, d, pod)
	for _, tc := range []struct {
		name, says string
		args       []string
		pods       string // the most that the namespace may have
	}{
		{"install: an image that is not there", "✗ install release", []string{"--set", "image.tag=none", "--timeout", "15s"}, ""},
		{"verify: no room for the test's pod", "✗ helm test", nil, "4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.pods != "" {
				quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse(tc.pods)}}}
				if _, err := w.api.CoreV1().ResourceQuotas(falcos).Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := w.api.CoreV1().ResourceQuotas(falcos).Delete(t.Context(), quota.Name, metav1.DeleteOptions{}); err != nil {
						t.Error(err)
					}
				}()
			}
			out, code := w.migration(t, append([]string{"--yes", "--release", old, "--set", "webhook.enabled=false"}, tc.args...)...)
			if code != 1 || !strings.Contains(out, tc.says) || !strings.Contains(out, "all is as it was") {
				t.Fatalf("ended with %d, want 1, %q, and that all is as it was:\n%s", code, tc.says, out)
			}
			if got := w.fingerprint(t, falcos, old); got != "revision 1, deployed" {
				t.Errorf("the old release is %s", got)
			}
			w.nothingOf(t, falcos, "metawire")
			w.exactly(t, d, pod)
		})
	}
	w.remove(t, d)
	t.Run("hand over: a subscriber that is not known as Falco", func(t *testing.T) {
		other := daemon{name: "other", config: byHand(service+"."+falcos+".svc", 45000, "${FALCO_K8S_NODE_NAME}", ""), change: func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].Image = "example.test/client:1"
			p.Spec.Containers[0].Name = "client"
		}}
		pod := w.start(t, other)
		w.exactly(t, other, pod)
		out, code := w.migration(t, "--yes", "--release", old, "--set", "webhook.enabled=false")
		if code != 1 || !strings.Contains(out, "have refused") || !strings.Contains(out, "all is as it was") {
			t.Fatalf("ended with %d, want 1, that it was refused, and that all is as it was:\n%s", code, out)
		}
		// Not exactly: the old collector, made anew, does not tell what was deleted
		// while it was away.
		eventually(t, soon, func(ctx context.Context) error {
			s, err := other.state(ctx, pod)
			if err == nil && len(s.Attempts) == len(s.Ends) {
				err = fmt.Errorf("it has no stream: %s", ended(s))
			}
			return err
		})
		w.nothingOf(t, falcos, "metawire")
		w.remove(t, other)
	})
	t.Run("hand over: of whom the old collector serves nobody comes", func(t *testing.T) {
		pods, err := w.api.CoreV1().Pods(falcos).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=k8s-metacollector"})
		if err != nil || len(pods.Items) != 1 {
			t.Fatalf("want one old collector, got %v, %v", pods, err)
		}
		bound := daemon{name: "bound", config: byHand(pods.Items[0].Status.PodIP, 45000, "${FALCO_K8S_NODE_NAME}", "")} // and not to the Service
		pod := w.start(t, bound)
		w.exactly(t, bound, pod)
		out, code := w.migration(t, "--yes", "--release", old, "--set", "webhook.enabled=false")
		if code != 1 || !strings.Contains(out, "served 1 subscribers, and none has come") || !strings.Contains(out, "all is as it was") {
			t.Fatalf("ended with %d, want 1, that nobody came, and that all is as it was:\n%s", code, out)
		}
		w.nothingOf(t, falcos, "metawire")
		w.remove(t, bound)
	})
	w.uninstallOld(t, falcos, old)
}

// testMigrateKilled: a run that is killed, wherever, is taken up by the next, and
// the end is the same.
func testMigrateKilled(t *testing.T, w *world) {
	t.Run("an inventory", func(t *testing.T) {
		t.Parallel()
		testMigrateKilledInventory(t, w)
	})
	t.Run("on the way back", func(t *testing.T) {
		t.Parallel()
		testMigrateKilledOnTheWayBack(t, w)
	})
	// What the command says as a step begins; and a step later it is in the middle
	// of the next.
	for i, at := range []string{
		"  back up", "  install release", "✓ install release", "  helm test", "✓ helm test", "  lead Service", "✓ lead Service",
		"✓ end the old collectors", "✓ see for", "  see that release", "  remove the objects", "✓ remove the objects", "  remove Helm's records",
	} {
		t.Run(strings.TrimSpace(at), func(t *testing.T) {
			t.Parallel()
			ns := fmt.Sprintf("killed-%d", i)
			w.createNamespace(t, ns)
			old, to := "old-"+ns, "metawire-"+ns
			w.installOld(t, oldcharts.Metacollector, old, ns, oldStream())
			args := w.migrateArgs(t, "--yes", "--namespace", ns, "--to-release", to, "--set", "webhook.enabled=false,collector.replicas=1")
			w.killAt(t, at, args...)
			if at == "  remove the objects" { // and the new one does not work any more
				w.unready(t, ns, to+"-collector", 1, func() {
					if out, code := w.migration(t, args[1:]...); code != 1 || !strings.Contains(out, "leads to no collector that is ready") {
						t.Errorf("the new collectors are away: ended with %d, want 1, and why:\n%s", code, out)
					}
				})
			}
			out, code := w.migration(t, "--yes", "--namespace", ns, "--to-release", to, "--set", "webhook.enabled=false,collector.replicas=1")
			if code != 0 {
				t.Fatalf("the run after that ended with %d:\n%s", code, out)
			}
			if got := w.fingerprint(t, ns, to); got != "revision 1, deployed" {
				t.Errorf("the new release is %s\n%s", got, out)
			}
			if got := w.fingerprint(t, ns, old); !strings.Contains(got, "not found") {
				t.Errorf("the old release is %s\n%s", got, out)
			}
			w.gone(t, ns, old+"-k8s-metacollector", "Deployment", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")
			if s, err := w.api.CoreV1().Services(ns).Get(t.Context(), old+"-k8s-metacollector", metav1.GetOptions{}); err != nil || s.Labels["metawire.dev/legacy"] != old {
				t.Errorf("the old Service does not lead to the new release: %v", err)
			}
			w.uninstall(t, ns, to)
		})
	}
}

// testMigrateKilledInventory is the same of an inventory, of which there can be one
// at a time.
func testMigrateKilledInventory(t *testing.T, w *world) {
	const ns, old, to = "killed-inventory", "firefly", "metawire-killed-inventory"
	w.createNamespace(t, ns)
	endpoint := &fireflyService{Receiver: receiver.New(receiver.Options{AccessKey: fireflyKey, SecretKey: fireflySecret})}
	values := oldInventory(w.serve(t, endpoint))
	for _, at := range []string{"  suspend", "✓ copy the credentials", "  send the inventory", "✓ send the inventory", "  remove the objects"} {
		w.installOld(t, oldcharts.Firefly, old, ns, values)
		args := []string{"--yes", "--namespace", ns, "--to-release", to}
		w.killAt(t, at, w.migrateArgs(t, args...)...)
		if at == "✓ copy the credentials" { // and somebody lets the old one go on
			w.suspend(t, ns, old+"-cronjob", false)
		}
		if out, code := w.migration(t, args...); code != 0 {
			t.Fatalf("killed at %q, the run after that ended with %d:\n%s", at, code, out)
		}
		if got := w.fingerprint(t, ns, to); got != "revision 1, deployed" {
			t.Errorf("killed at %q: the new release is %s", at, got)
		}
		w.gone(t, ns, old+"-cronjob", "CronJob")
		w.gone(t, ns, old+"-credentials", "Secret")
		w.gone(t, ns, "infralight-role", "ClusterRole")
		if slices.Contains(endpoint.boards, "/off") {
			t.Errorf("killed at %q: the cluster was signed off", at)
		}
		w.uninstall(t, ns, to)
	}
}

// testMigrateKilledOnTheWayBack kills --rollback, too.
func testMigrateKilledOnTheWayBack(t *testing.T, w *world) {
	const ns, old, to = "killed-back", "old-killed-back", "metawire-killed-back"
	w.createNamespace(t, ns)
	w.installOld(t, oldcharts.Metacollector, old, ns, oldStream())
	w.mustMigrate(t, "--namespace", ns, "--to-release", to, "--set", "webhook.enabled=false,collector.replicas=1")
	back := []string{"--rollback", "--yes", "--namespace", ns}
	for _, at := range []string{"  bring back", "✓ bring back", "  lead the old Service back", "  remove release"} {
		w.killAt(t, at, w.migrateArgs(t, back...)...)
	}
	// A plain run goes on with it, too.
	if out, code := w.migration(t, "--yes", "--namespace", ns); code != 0 || !strings.Contains(out, "is back") {
		t.Fatalf("the run after that ended with %d, want 0, and that the old release is back:\n%s", code, out)
	}
	if got := w.fingerprint(t, ns, old); got != "revision 1, deployed" {
		t.Errorf("the old release is %s", got)
	}
	w.rolledOut(t, ns, old+"-k8s-metacollector")
	w.nothingOf(t, ns, to)
}

// killAt runs the command line and kills it when it has written the words. That it
// has ended by then is no failure: where its steps are short, it may.
func (w *world) killAt(t *testing.T, words string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), migrated)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.commandLine(t), append(args, "--kubeconfig", w.cluster.Kubeconfig())...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = nil
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	chunk := make([]byte, 1<<12)
	for !strings.Contains("\n"+text.String(), "\n"+words) {
		n, err := stderr.Read(chunk)
		text.Write(chunk[:n])
		if err != nil {
			t.Errorf("it never said %q:\n%s", words, text.String())
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}
