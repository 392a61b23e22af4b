package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/installation"
)

// TestANodeThatIsNotThere: it is told, and one that is, is not told of; nor is
// anything by who may not know.
func TestANodeThatIsNotThere(t *testing.T) {
	_, addr := collect(t)
	a := installed()
	a["/api/v1/namespaces/metawire/pods"] = corev1.PodList{Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Status: corev1.PodStatus{Phase: corev1.PodPending}}}}
	a["/api/v1/nodes/worker-1"] = corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-1"}}
	kubeconfig := a.serve(t)
	for node, there := range map[string]bool{"worker-1": true, "nosuch": false} {
		t.Run(node, func(t *testing.T) {
			told := func(c *command) bool {
				return strings.Count(c.stderr.String(), `there is no node "`+node+`"`) == 1
			}
			c := start(t, "explain", "subscribers", "--node", node, "--kubeconfig", kubeconfig)
			if err := <-c.done; !errors.Is(err, errFinding) || told(c) == there {
				t.Errorf("explain subscribers: error %v, stderr %q", err, c.stderr)
			}
			// No collector runs, so it ends.
			c = start(t, "watch", "--node", node, "--kubeconfig", kubeconfig)
			if err := <-c.done; err == nil || told(c) == there {
				t.Errorf("watch: error %v, stderr %q", err, c.stderr)
			}
		})
	}
	if all := []installation.Replica{{Pod: "c"}}; missed(all, "") != nil || !errors.Is(missed(all, "there is no node"), errFinding) {
		t.Error("that there is no such node is no finding, or that there is one is")
	}
	// Who names the address asks no API server.
	c := start(t, "watch", "--node", "nosuch", "--addr", addr, "--kubeconfig", kubeconfig)
	c.stderr.waitFor(t, "connected")
	if err := c.interrupt(); err != nil || strings.Contains(c.stderr.String(), "there is no node") {
		t.Errorf("error %v, stderr %q", err, c.stderr)
	}
}

// TestKubeconfigThatIsNotThere: the error names the files, and what to say instead.
func TestKubeconfigThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	one, two, empty := filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		variable string
		args     []string
		want     []string
		not      string
	}{
		"one file":     {one, nil, []string{"KUBECONFIG names what is not there: " + one}, "KUBERNETES_MASTER"},
		"two files":    {one + ":" + two, nil, []string{one + ", " + two}, "KUBERNETES_MASTER"},
		"one of two":   {one + ":" + empty, nil, []string{"not there: " + one}, empty},
		"a context":    {one, []string{"--context", "prod"}, []string{`"prod"`, "not there: " + one}, ""},
		"one is named": {one, []string{"--kubeconfig", two}, []string{two}, one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", c.variable)
			err := <-start(t, append([]string{"check"}, c.args...)...).done
			for _, want := range append(c.want, "--kubeconfig FILE") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
			if err != nil && c.not != "" && strings.Contains(err.Error(), c.not) {
				t.Errorf("error %v, want no %q in it", err, c.not)
			}
		})
	}
}
