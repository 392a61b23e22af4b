package integration_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/collector/inventory"
)

// buildCommandLine builds the program for people and returns its path.
func buildCommandLine(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "metawire")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/metawire/metawire/cmd/metawire").CombinedOutput(); err != nil {
		t.Fatalf("build the command line: %v: %s", err, out)
	}
	return path
}

// TestInventoryDryRun: one valid document with the objects of the chart's types,
// whole and redacted, and nothing is changed in the cluster.
func TestInventoryDryRun(t *testing.T) {
	metawire, namespace := buildCommandLine(t), newNamespace(t)
	const canary = "AKIAIOSFODNN7CANARY0"
	create(t,
		&corev1.ConfigMap{ObjectMeta: metadataOf(namespace, "settings"), Data: map[string]string{"color": "blue"}},
		&corev1.Secret{ObjectMeta: metadataOf(namespace, "password"), StringData: map[string]string{"p": canary}},
		&corev1.Pod{ObjectMeta: metadataOf(namespace, "app"), Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "none", Env: []corev1.EnvVar{{Name: "KEY", Value: canary}},
		}}}},
	)
	run := func(args ...string) (stdout, stderr []byte) {
		var out, errs bytes.Buffer
		c := exec.CommandContext(t.Context(), metawire, append([]string{"inventory", "--kubeconfig", plane.Kubeconfig()}, args...)...)
		c.Stdout, c.Stderr = &out, &errs
		if err := c.Run(); err != nil {
			t.Fatalf("metawire inventory %s: %v\n%s%s", args, err, errs.Bytes(), out.Bytes())
		}
		return out.Bytes(), errs.Bytes()
	}
	stdout, stderr := run("--dry-run", "-o", "json")
	var document struct {
		ClusterID string `json:"clusterID"`
		Objects   []struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct{ Namespace, Name, UID string }
		} `json:"objects"`
		Report inventory.Report `json:"report"`
	}
	decoder := json.NewDecoder(bytes.NewReader(stdout))
	if err := decoder.Decode(&document); err != nil {
		t.Fatalf("not a document: %v", err)
	}
	if decoder.More() {
		t.Error("there is more than one document")
	}
	if bytes.Contains(stdout, []byte(canary)) || bytes.Contains(stderr, []byte(canary)) {
		t.Error("a credential is shown")
	}
	var kinds []string
	for _, o := range document.Objects {
		if o.APIVersion == "" || o.Metadata.UID == "" {
			t.Fatalf("not an object of the API: %+v", o)
		}
		if o.Metadata.Namespace == namespace {
			kinds = append(kinds, o.Kind+" "+o.Metadata.Name)
		}
	}
	slices.Sort(kinds)
	if got := strings.Join(kinds, ", "); !strings.Contains(got, "ConfigMap settings, ") || !strings.Contains(got, "Pod app") || strings.Contains(got, "Secret") {
		t.Errorf("the test's objects are %s", got)
	}
	r := document.Report
	if r.Result != inventory.Complete || r.Sent.Objects != len(document.Objects) || len(r.Types) < 30 {
		t.Errorf("%d objects, and the report is %+v", len(document.Objects), r)
	}
	if text, _ := run("--dry-run"); !strings.Contains(string(text), "configmaps ") || !strings.Contains(string(text), "complete: ") {
		t.Errorf("the text is\n%s", text)
	}
	file := filepath.Join(t.TempDir(), "types.yaml") // of what is sent, and nothing else
	if err := os.WriteFile(file, []byte("{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, inventory: {resources: [configmaps]}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, _ := run("--dry-run", "--config", file); !strings.Contains(string(text), "configmaps ") || strings.Contains(string(text), "pods ") {
		t.Errorf("of the file the text is\n%s", text)
	}
}

// TestInventoryTypes: who may list everything misses what is not served; who may
// list nothing misses everything, which is a finding.
func TestInventoryTypes(t *testing.T) {
	t.Parallel()
	metawire, ns := buildCommandLine(t), newNamespace(t) // without a release, which other tests have
	type row struct {
		Name, APIVersion, Missed    string
		Configured, Served, Allowed bool
	}
	run := func(code int, args ...string) map[string]row {
		c := exec.CommandContext(t.Context(), metawire, append([]string{"inventory", "types", "-o", "json", "-n", ns, "--kubeconfig", plane.Kubeconfig()}, args...)...)
		var errs bytes.Buffer
		c.Stderr = &errs
		stdout, _ := c.Output() // the exit code is looked at
		if got := c.ProcessState.ExitCode(); got != code {
			t.Fatalf("metawire inventory types %s ends with %d, want %d: %s", args, got, code, errs.Bytes())
		}
		var rows []row
		if err := json.Unmarshal(stdout, &rows); err != nil {
			t.Fatal(err)
		}
		byName := map[string]row{}
		for _, r := range rows {
			byName[r.Name] = r
		}
		return byName
	}
	admin := run(0, "--all")
	for name, want := range map[string]row{
		"pods":                 {"pods", "v1", "", true, true, true},
		"deployments.apps":     {"deployments.apps", "apps/v1", "", true, true, true},
		"rollouts.argoproj.io": {"rollouts.argoproj.io", "", "this API server does not serve it", true, false, false},
		"secrets":              {"secrets", "v1", "holds credentials, so it is only collected when it is added", false, true, true},
		"limitranges":          {"limitranges", "v1", "not configured: add it to the chart's addTypes", false, true, true},
	} {
		if admin[name] != want {
			t.Errorf("%s is %+v, want %+v", name, admin[name], want)
		}
	}
	nobody := run(2, "--as", "nobody")
	if _, ok := nobody["secrets"]; ok {
		t.Error("secrets are shown without being configured")
	}
	if want := (row{"pods", "v1", "forbidden: no role lets it be listed", true, true, false}); nobody["pods"] != want {
		t.Errorf("for nobody pods are %+v, want %+v", nobody["pods"], want)
	}
}
