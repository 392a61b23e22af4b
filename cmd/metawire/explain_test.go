package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const daemonSet = `apiVersion: v1
kind: ConfigMap
metadata: {name: falco}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: falco, namespace: security}
spec:
  template:
    metadata: {labels: {app: falco}}
    spec:
      hostNetwork: true
      containers:
      - name: falco
        image: falcosecurity/falco:0.43.1
        args: [/usr/bin/falco]
`

func podFile(image, more string) string {
	return `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"` + more + `}, "spec": {"containers": [{"name": "main", "image": "` + image + `"}]}}`
}

// TestExplainFile: what the webhook would do with a pod that does not exist, by
// the code of the webhook; the exit code is in the error.
func TestExplainFile(t *testing.T) {
	for name, tc := range map[string]struct {
		file  string
		wired bool
		says  []string
	}{
		"a DaemonSet among others": {daemonSet, true, []string{
			"Pod security/falco-*", `container "falco", falcosecurity/falco:0.43.1`, "wired",
			"+ init container metawire-wire", "-o config_files[]=/run/metawire/generated/falco.yaml", "+ host alias metawire-collector.metawire.svc",
		}},
		"another subscriber": {podFile("agent:1", `, "annotations": {"metawire.dev/inject": "true"}`), true, []string{"subscriber", "METAWIRE_ENDPOINT"}},
		"not Falco":          {podFile("nginx:1", ""), false, []string{"none of its containers", "no container is named falco"}},
		"opted out":          {podFile("falco:0.43.1", `, "annotations": {"metawire.dev/inject": "false"}`), false, []string{`metawire.dev/inject is "false"`}},
		"kube-system":        {strings.Replace(daemonSet, "namespace: security", "namespace: kube-system", 1), false, []string{"Pod kube-system/falco-*", `leaves namespace "kube-system" out`}},
		"too old":            {podFile("falco:0.38.0", ""), false, []string{"notWired", "0.41.0 or later is needed"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pod.yaml")
			if err := os.WriteFile(file, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			c := start(t, "explain", "pod", "-f", file)
			if err := <-c.done; errors.Is(err, errFinding) == tc.wired || err != nil && !errors.Is(err, errFinding) {
				t.Errorf("error %v, wired: %v", err, tc.wired)
			}
			for _, want := range tc.says {
				if !strings.Contains(c.stdout.String(), want) {
					t.Errorf("no %q in\n%s", want, c.stdout)
				}
			}
			c = start(t, "explain", "pod", "-f", file, "-o", "json")
			if err := <-c.done; errors.Is(err, errFinding) == tc.wired {
				t.Errorf("as JSON: error %v", err)
			}
			var x explanation
			if err := json.Unmarshal([]byte(c.stdout.String()), &x); err != nil || x.Wired != tc.wired || x.Now.Reason == "" {
				t.Errorf("error %v: %+v", err, x)
			}
		})
	}
}

func TestExplainRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.yaml")
	if err := os.WriteFile(empty, []byte("kind: Service"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"nothing":         {nil, "give a pod, NAMESPACE/NAME, or a file"},
		"both":            {[]string{"a/b", "-f", empty}, "give a pod, NAMESPACE/NAME, or a file"},
		"no pod":          {[]string{"-f", empty}, "there is no Pod in it"},
		"no file":         {[]string{"-f", empty + ".not"}, empty + ".not"},
		"no namespace":    {[]string{"falco-x"}, `"falco-x" is not NAMESPACE/NAME`},
		"namespace by -n": {[]string{"-n", "falco", "falco-x"}, "write the pod with its namespace, such as falco/falco-x2x7z; -n is the namespace that Metawire is installed in"},
		"no cluster":      {[]string{"a/b", "--kubeconfig", empty + ".not"}, "--kubeconfig FILE"},
		"several pods":    {[]string{"a/b", "c/d"}, "accepts at most 1 arg"},
		"another context": {[]string{"a/b", "--context", "nowhere"}, "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, append([]string{"explain", "pod"}, tc.args...)...)
			if err := <-c.done; err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}
