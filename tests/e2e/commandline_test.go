package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// metawire runs the command line against the cluster to its end, and returns what
// it wrote and its exit code.
func (w *world) metawire(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	w.commandLine(t) // the first time it takes longer than a command may
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return w.command(ctx, t, "", args...)
}

// command is metawire, ended when it has written the words to wait for, if there
// are any.
func (w *world) command(ctx context.Context, t *testing.T, until string, args ...string) (out string, code int) {
	t.Helper()
	if !slices.Contains(args, "--kubeconfig") {
		args = append(args, "--kubeconfig", w.cluster.Kubeconfig())
	}
	cmd := exec.CommandContext(ctx, w.commandLine(t), args...)
	var b bytes.Buffer
	cmd.Stderr = &b
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<16)
	var text strings.Builder
	for {
		n, err := stdout.Read(chunk)
		text.Write(chunk[:n])
		if err != nil || until != "" && strings.Contains(text.String(), until) {
			break
		}
	}
	if until != "" {
		if err := cmd.Process.Kill(); err != nil {
			t.Log(err)
		}
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return text.String() + b.String(), code
}

// commandLine builds the command line once.
func (w *world) commandLine(t *testing.T) string {
	t.Helper()
	if w.binary == "" {
		w.binary = filepath.Join(w.temp, "metawire")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", w.binary, "github.com/metawire/metawire/cmd/metawire")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return w.binary
}

// testCommandLine: with a kubeconfig and nothing else.
func testCommandLine(t *testing.T, w *world) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	own := daemon{name: "own-network"}
	pod := w.falcoPod(t, own)
	if out, _ := w.command(ctx, t, `"`+pod.Name+`"`, "watch", "--node", w.node, "-o", "json"); !strings.Contains(out, `"`+pod.Name+`"`) {
		t.Errorf("watch has not found pod %s through the API server:\n%s", pod.Name, out)
	}
	out, code := w.metawire(t, "explain", "pod", falcos+"/"+pod.Name)
	for _, want := range []string{"wired by webhook", "wired with a ticket", "on node " + w.node, "connected to metawire-collector-", "by its ticket: ", " events sent, 0 pending"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("explain ended with %d, want %q in\n%s", code, want, out)
		}
	}
	var x struct{ Wired bool }
	if out, code := w.metawire(t, "explain", "pod", falcos+"/not-falco", "-o", "json"); code != 2 || json.Unmarshal([]byte(out), &x) != nil || x.Wired {
		t.Errorf("explain of a pod that is not Falco ended with %d:\n%s", code, out)
	}
	if strings.Contains(out, "could not be asked") || strings.Contains(out, "refused") {
		t.Errorf("explain of a pod that is served:\n%s", out)
	}
	if out, code := w.metawire(t, "explain", "subscribers"); code != 0 || !strings.Contains(out, falcos+"/"+pod.Name) {
		t.Errorf("explain subscribers ended with %d, want 0 and pod %s:\n%s", code, pod.Name, out)
	}
	var replicas []struct {
		Collector string
		Told      *struct{ Subscribers []struct{ Node string } }
	}
	if out, code := w.metawire(t, "explain", "subscribers", "--node", w.node, "-o", "json"); code != 0 || json.Unmarshal([]byte(out), &replicas) != nil || len(replicas) == 0 || replicas[0].Told == nil {
		t.Errorf("explain subscribers -o json ended with %d:\n%s", code, out)
	}
	if out, code := w.metawire(t, "check"); code != 0 {
		t.Errorf("check ended with %d:\n%s", code, out)
	}
}
