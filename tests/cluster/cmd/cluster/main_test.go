package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metawire/metawire/tests/cluster"
)

// name is not the default: a cluster of that name may be running here.
const name = "cmdtest"

// TestMain lets up start this binary as its supervisor.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		main()
		return
	}
	m.Run()
}

func TestUpTwiceAndDown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	try := func(want string, args ...string) {
		t.Helper()
		err := run(t.Context(), t.Output(), append(args, "-dir", dir, "-name", name))
		if want == "" && err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Fatalf("%s: %v, want %q", args, err, want)
		}
	}
	t.Cleanup(func() { try("", "down") })
	plane := []string{"up", "-size=control-plane", "-controllers=false", "-port=0"}
	try("", "down")
	try("", plane...)
	first, running := cluster.Running(dir)
	if !running {
		t.Fatal("it does not run")
	}
	if _, err := os.Stat(filepath.Join(dir, "kubeconfig")); err != nil {
		t.Error(err)
	}
	try("", plane...)
	if second, _ := cluster.Running(dir); second != first {
		t.Errorf("a second up started process %d, %d was there", second, first)
	}
	try("make cluster-down first", "up", "-size=control-plane", "-port=0")
	try("make cluster-down first", "up", "-size=node")
	try("no cluster of size node", "import", "x.tar")
	try("", "down")
	if _, running := cluster.Running(dir); running {
		t.Error("it runs after down")
	}
	if left, err := os.ReadDir(dir); !os.IsNotExist(err) {
		t.Errorf("down left %v", left)
	}
}

func TestUpReportsWhatFailed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	err := run(t.Context(), t.Output(), []string{"up", "-size=control-plane", "-port=0", "-bin=/nonexistent", "-dir", dir, "-name", name})
	if err == nil || !strings.Contains(err.Error(), "did not start") {
		t.Errorf("got %v", err)
	}
	log, err := os.ReadFile(filepath.Join(dir, logFile))
	if err != nil || !strings.Contains(string(log), "/nonexistent/etcd") {
		t.Errorf("the supervisor's log: %q, %v", log, err)
	}
	if err := run(t.Context(), t.Output(), []string{"down", "-dir", dir, "-name", name}); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"sideways"}} {
		if err := run(t.Context(), t.Output(), args); err == nil || !strings.Contains(err.Error(), "usage: cluster COMMAND") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
