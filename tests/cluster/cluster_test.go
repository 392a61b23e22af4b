package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/metawire/metawire/tests/cluster"
)

// holdVariable makes the test binary hold a cluster with the options in it,
// so that a test can kill what holds one.
const holdVariable = "CLUSTER_TEST_HOLD"

const patience = 30 * time.Second

func TestMain(m *testing.M) {
	cluster.Init()
	if options := os.Getenv(holdVariable); options != "" {
		if err := hold(options); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	m.Run()
}

// hold starts a cluster, says so on standard output and stops it when
// standard input ends.
func hold(options string) error {
	var o cluster.Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	o.Log = os.Stderr
	c, err := cluster.Start(context.Background(), o)
	if err != nil {
		return err
	}
	if o.Size == cluster.ControlPlane { // what runs beside it must end too
		if _, err := c.CertManager(context.Background()); err != nil {
			return errors.Join(err, c.Stop())
		}
	}
	if _, err := os.Stdout.WriteString(c.Kubeconfig() + "\n"); err != nil {
		return errors.Join(err, c.Stop())
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, c.Stop())
}

// holder starts a process that holds a cluster, and waits for the cluster.
func holder(t *testing.T, o cluster.Options) *exec.Cmd {
	t.Helper()
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdVariable+"="+string(options))
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("the process that holds a cluster: %v, %v", err, cmd.Wait())
	}
	return cmd
}

// start starts a cluster that ends with the test.
func start(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	o.Log = t.Output()
	c, err := cluster.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// tempDir is short enough for the Unix sockets of a node; t.TempDir is not.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// kubectl runs kubectl and returns what it writes.
func kubectl(t *testing.T, c *cluster.Cluster, input string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.Bin(), "kubectl"), append([]string{
		"--kubeconfig=" + c.Kubeconfig(), "--cache-dir=" + t.TempDir(),
	}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must is kubectl for what has to work.
func must(t *testing.T, c *cluster.Cluster, input string, args ...string) string {
	t.Helper()
	out, err := kubectl(t, c, input, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// eventually waits until condition returns nothing that is wrong.
func eventually(t *testing.T, condition func() (wrong string)) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong := condition()
		if wrong == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %s: %s", patience, wrong)
		}
	}
}

// processes returns the command lines of the processes that mention dir.
func processes(t *testing.T, dir string) map[string]int {
	t.Helper()
	found := map[string]int{}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		if command := strings.ReplaceAll(string(line), "\x00", " "); strings.Contains(command, dir) {
			found[command] = atoi(t, filepath.Base(filepath.Dir(f)))
		}
	}
	return found
}

func TestTwoControlPlanes(t *testing.T) {
	const pod = `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: a}]}}`
	const deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}},
		template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}`
	with := start(t, cluster.Options{Size: cluster.ControlPlane, Controllers: true})
	without := start(t, cluster.Options{Size: cluster.ControlPlane})

	t.Run("version", func(t *testing.T) {
		// A build from modules does not know its version unless it is told.
		if out := must(t, with, "", "version"); strings.Contains(out, "v0.0.0") || !strings.Contains(out, "Server Version: v1.") {
			t.Error(out)
		}
	})
	t.Run("pods without controllers", func(t *testing.T) {
		must(t, without, pod, "create", "-f", "-")
		if out := must(t, with, "", "get", "pods"); !strings.Contains(out, "No resources") {
			t.Errorf("the other cluster has pods: %s", out)
		}
	})
	t.Run("controllers make pods", func(t *testing.T) {
		must(t, with, deployment, "create", "-f", "-")
		must(t, with, "", "wait", "--for=create", "pod", "-l", "a=b", "--timeout=30s")
	})
	t.Run("tokens and permissions", func(t *testing.T) {
		for _, c := range []*cluster.Cluster{with, without} {
			must(t, c, "", "create", "serviceaccount", "s")
			token := strings.TrimSpace(must(t, c, "", "create", "token", "s"))
			out, err := kubectl(t, c, "", "--token="+token, "--kubeconfig="+anonymous(t, c), "get", "pods")
			if err == nil || !strings.Contains(out, `User "system:serviceaccount:default:s" cannot list`) {
				t.Errorf("a token without permissions: %v: %s", err, out)
			}
		}
	})
	t.Run("audit log", func(t *testing.T) {
		must(t, with, "", "get", "--raw", "/api/v1/endpoints?limit=7")
		eventually(t, func() string {
			log, err := os.ReadFile(with.AuditLog())
			if err != nil {
				return err.Error()
			}
			for line := range strings.Lines(string(log)) {
				var event struct {
					RequestURI, Stage, Verb string
				}
				if err := json.Unmarshal([]byte(line), &event); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if event.RequestURI == "/api/v1/endpoints?limit=7" && event.Stage == "ResponseComplete" && event.Verb == "list" {
					return ""
				}
			}
			return "the list is not in the audit log"
		})
	})
}

// anonymous returns a copy of the kubeconfig without the client's certificate.
func anonymous(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	content, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "users:") {
			line = "users: [{name: admin, user: {}}]\n"
		}
		kept = append(kept, line)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(strings.Join(kept, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKillRestartCompact(t *testing.T) {
	c := start(t, cluster.Options{Size: cluster.ControlPlane, Controllers: true})
	must(t, c, "", "create", "configmap", "kept")
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		if err := c.Kill(name); err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(name); err != nil {
			t.Errorf("to kill %s again: %v", name, err)
		}
		if err := c.Restart(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Kill("kubelet"); err == nil {
		t.Error("killed a kubelet that is not there")
	}
	eventually(t, func() string {
		if out, err := kubectl(t, c, "", "get", "configmap", "kept"); err != nil {
			return out
		}
		return ""
	})

	old := strings.TrimSpace(must(t, c, "", "get", "configmap", "kept", "-o", "jsonpath={.metadata.resourceVersion}"))
	must(t, c, "", "create", "configmap", "newer")
	if _, err := c.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(t.Context(), "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	watch := "/api/v1/configmaps?watch=true&timeoutSeconds=5&resourceVersion=" + old
	if out := must(t, c, "", "get", "--raw", watch); !strings.Contains(out, `"code":410`) {
		t.Errorf("a watch at a compacted version: %s", out)
	}
	select {
	case <-c.Done():
		t.Error("done: a component that was killed by Kill counts as ended")
	default:
	}
}

func TestComponentEnds(t *testing.T) {
	dir := tempDir(t)
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: dir, Size: cluster.ControlPlane})
	if err != nil {
		t.Fatal(err)
	}
	for command, pid := range processes(t, dir) {
		if strings.Contains(command, "--data-dir") {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-c.Done()
	if err := c.Stop(); err == nil || !strings.Contains(err.Error(), "etcd ended: signal: killed") {
		t.Errorf("stop: %v", err)
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestControlPlaneEndsWithItsProcess(t *testing.T) {
	dir := tempDir(t)
	cmd := holder(t, cluster.Options{Dir: dir, Size: cluster.ControlPlane, Controllers: true})
	if n := len(processes(t, dir)); n < 5 {
		t.Fatalf("%d processes, want 5", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, func() string {
		for command := range processes(t, dir) {
			return command
		}
		return ""
	})
	start(t, cluster.Options{Dir: dir, Size: cluster.ControlPlane}) // what it left is no obstacle
}

func TestRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	taken := atoi(t, port)
	dir := tempDir(t)
	start(t, cluster.Options{Dir: dir, Size: cluster.ControlPlane})
	for name, test := range map[string]struct {
		options cluster.Options
		want    string
	}{
		"directory in use": {cluster.Options{Size: cluster.ControlPlane, Dir: dir}, cluster.ErrRunning.Error()},
		"port taken":       {cluster.Options{Size: cluster.ControlPlane, Port: taken}, "address already in use"},
		"no size":          {cluster.Options{}, `size ""`},
		"no binaries":      {cluster.Options{Size: cluster.ControlPlane, Bin: "/nonexistent"}, "/nonexistent/etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := cluster.Start(t.Context(), test.options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cluster.Start(canceled, cluster.Options{Size: cluster.ControlPlane}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
