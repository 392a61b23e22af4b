package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/collector/inventory/receiver"
)

// TestInventoryOnce: with both contracts, from a file and the environment, every
// object of the types arrives.
func TestInventoryOnce(t *testing.T) {
	t.Parallel()
	metawire, namespace := buildCommandLine(t), newNamespace(t)
	settings := &corev1.ConfigMap{ObjectMeta: metadataOf(namespace, "settings"), Data: map[string]string{"color": "blue"}}
	create(t, settings)
	for _, contract := range []string{"objects", "runs"} {
		t.Run(contract, func(t *testing.T) {
			r := receiver.New(receiver.Options{AccessKey: "access", SecretKey: "secret"})
			server := httptest.NewServer(r)
			defer server.Close()
			file := filepath.Join(t.TempDir(), "once.yaml")
			text := fmt.Sprintf(`apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
inventory:
  enabled: true
  endpoint: %s
  contract: %s
  resources: [configmaps, namespaces, rollouts.argoproj.io]
`, server.URL, contract)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := exec.CommandContext(t.Context(), metawire, "inventory", "--once", "--config", file, "--kubeconfig", plane.Kubeconfig())
			c.Env = append(os.Environ(), "METAWIRE_CLUSTER_ID=a-cluster", "METAWIRE_ACCESS_KEY=access", "METAWIRE_SECRET_KEY=secret")
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			if !strings.Contains(string(out), "\ncomplete: ") || !strings.Contains(string(out), "rollouts.argoproj.io  absent") {
				t.Errorf("it says\n%s", out)
			}
			if kept := r.Kept(); kept.Objects[string(settings.UID)] == nil || kept.Refused > 0 {
				t.Errorf("%d objects arrived, %d requests were refused", len(kept.Objects), kept.Refused)
			}
		})
	}
}

// released is an object of a release's part.
func released(namespace, component string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: "metawire-" + component, Labels: map[string]string{
		"app.kubernetes.io/part-of": "metawire", "app.kubernetes.io/component": component, "app.kubernetes.io/instance": namespace,
	}}
}

// TestInventoryTriggerCommand: the release is found, the replica that holds the
// Lease makes a run, and its report is printed.
func TestInventoryTriggerCommand(t *testing.T) {
	t.Parallel()
	metawire, state := buildCommandLine(t), newInventoryState(t)
	lease := &coordinationv1.Lease{ObjectMeta: released(state.Namespace, "inventory")}
	lease.Name = state.Lease
	create(t,
		&corev1.Service{ObjectMeta: released(state.Namespace, "collector"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "grpc", Port: 45000}}}},
		&corev1.ConfigMap{ObjectMeta: released(state.Namespace, "collector"), Data: map[string]string{"collector.yaml": fmt.Sprintf(
			`{"inventory":{"enabled":true,"state":{"namespace":%q,"lease":%q,"report":%q}}}`, state.Namespace, state.Lease, state.Report)}},
		lease,
	)
	startReplica(t, state, "one", make(chan string, 1000), false)
	out, err := exec.CommandContext(t.Context(), metawire, "inventory", "trigger", "-n", state.Namespace, "--kubeconfig", plane.Kubeconfig()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "complete: 0 objects of 0 types") {
		t.Errorf("%v:\n%s", err, out)
	}
	made := &corev1.ConfigMap{}
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: state.Namespace, Name: state.Report}, made); err != nil {
		t.Fatal(err)
	}
	if len(made.OwnerReferences) != 1 || made.OwnerReferences[0].UID != lease.UID || made.Labels["app.kubernetes.io/part-of"] != "metawire" {
		t.Errorf("the report's ConfigMap does not go with the Lease: %+v", made.ObjectMeta)
	}
}

// testStuckRun: the check names why a pod of the CronJob cannot begin, report or not.
func testStuckRun(t *testing.T, namespace string, spec corev1.PodSpec, check func(string)) {
	t.Helper()
	stuck := &corev1.Pod{ObjectMeta: released(namespace, "inventory"), Spec: *spec.DeepCopy()}
	stuck.Spec.ServiceAccountName = ""
	create(t, stuck)
	stuck.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
		Name: "inventory", Image: "none", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such tag"}},
	}}}
	if err := api.Status().Update(t.Context(), stuck); err != nil {
		t.Fatal(err)
	}
	check("pod metawire-inventory does not begin its run: ImagePullBackOff: image none: no such tag")
	if err := api.Delete(t.Context(), stuck, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
}

// TestInventoryOfACronJob: a release that is a CronJob and nothing else is found,
// its types and its account are the CronJob's, and a Job of it makes the run that
// is asked for.
func TestInventoryOfACronJob(t *testing.T) {
	t.Parallel()
	metawire, state := buildCommandLine(t), newInventoryState(t)
	lease := &coordinationv1.Lease{ObjectMeta: released(state.Namespace, "inventory")}
	lease.Name = state.Lease
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		ServiceAccountName: "sender", RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "inventory", Image: "none"}},
	}}
	create(t, lease,
		&corev1.ConfigMap{ObjectMeta: released(state.Namespace, "inventory"), Data: map[string]string{"collector.yaml": fmt.Sprintf(
			`{"inventory":{"enabled":true,"resources":["pods","limitranges"],"state":{"namespace":%q,"lease":%q,"report":%q}}}`, state.Namespace, state.Lease, state.Report)}},
		&batchv1.CronJob{ObjectMeta: released(state.Namespace, "inventory"), Spec: batchv1.CronJobSpec{
			Schedule: "@yearly", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}},
		}},
	)
	command := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), metawire, append([]string{"inventory", args[0], "-n", state.Namespace, "--kubeconfig", plane.Kubeconfig()}, args[1:]...)...)
	}
	types := command("types")
	out, _ := types.CombinedOutput() // the exit code is looked at
	if code := types.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "\nlimitranges ") || strings.Contains(string(out), "services") || strings.Count(string(out), "forbidden") != 2 {
		t.Errorf("want two types that the account may not list, got %d and\n%s", code, out)
	}

	check := func(verdict string) {
		t.Helper()
		out, _ := exec.CommandContext(t.Context(), metawire, "check", "-n", state.Namespace, "--kubeconfig", plane.Kubeconfig()).CombinedOutput()
		if !strings.Contains(string(out), ", without a stream") || !strings.Contains(string(out), "- the collectors are ready") || !strings.Contains(string(out), verdict) {
			t.Errorf("check says not %q, but\n%s", verdict, out)
		}
	}
	check("there was no run yet")
	testStuckRun(t, state.Namespace, template.Spec, check)
	var said bytes.Buffer
	trigger := command("trigger")
	trigger.Stdout, trigger.Stderr = &said, &said
	if err := trigger.Start(); err != nil {
		t.Fatal(err)
	}
	var jobs batchv1.JobList
	eventually(t, func() error {
		err := api.List(t.Context(), &jobs, client.InNamespace(state.Namespace))
		if err == nil && len(jobs.Items) != 1 {
			err = fmt.Errorf("there are %d Jobs", len(jobs.Items))
		}
		return err
	})
	if got := jobs.Items[0].Spec.Template.Spec.ServiceAccountName; got != "sender" {
		t.Errorf("the Job's pod runs as %q", got)
	}
	// What the pod does, if there were one.
	service := inventory.Service{State: state, Log: slog.New(slog.DiscardHandler), Run: func(context.Context, func(inventory.Progress)) *inventory.Report {
		return &inventory.Report{Run: "r", Result: inventory.Complete, Ended: time.Now()}
	}}
	if _, err := service.Once(t.Context()); err != nil {
		t.Error(err)
	}
	if err := trigger.Wait(); err != nil || !strings.Contains(said.String(), "complete: 0 objects of 0 types") {
		t.Errorf("%v:\n%s", err, said.String())
	}
	check("ago: complete, 0 objects")
	testStuckRun(t, state.Namespace, template.Spec, check)
}
