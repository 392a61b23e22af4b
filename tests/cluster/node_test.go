package cluster_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/tests/cluster"
)

// The tests of size Node need root; make e2e runs them.

const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: dns
        image: registry.k8s.io/coredns/coredns:test
        args: [-dns.port=5353, -conf=/corefile/Corefile]
        volumeMounts: [{name: corefile, mountPath: /corefile}]
      - {name: pause, image: ` + cluster.PauseImage + `}
      volumes:
      - {name: corefile, configMap: {name: corefile}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: corefile}
data: {Corefile: ".:5353 {\n errors\n}\n"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: tcp, port: 80, targetPort: 5353}]
`

func TestNode(t *testing.T) {
	before := baseline(t)
	o := cluster.Options{Dir: tempDir(t), Size: cluster.Node, Name: "gotest", Subnet: 14}
	o.Log = t.Output()
	c, err := cluster.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	must(t, c, workload, "apply", "-f", "-")
	must(t, c, "", "rollout", "status", "deployment/web", "--timeout=60s")

	t.Run("pods, services and names are reached from here", func(t *testing.T) {
		dns := strings.TrimSpace(must(t, c, "", "get", "service", "kube-dns", "-n", "kube-system", "-o", "jsonpath={.spec.clusterIP}"))
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(dns, "53"))
		}}
		addresses, err := resolver.LookupHost(t.Context(), "web.default.svc.cluster.local.")
		if err != nil {
			t.Fatal(err)
		}
		pods := strings.Fields(must(t, c, "", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"))
		if len(pods) != 2 || len(addresses) != 1 {
			t.Fatalf("pods at %v, Service at %v", pods, addresses)
		}
		for _, address := range []string{pods[0] + ":5353", pods[1] + ":5353", addresses[0] + ":80"} {
			eventually(t, func() string { // kube-proxy may be a moment behind
				conn, err := net.DialTimeout("tcp", address, time.Second)
				if err != nil {
					return err.Error()
				}
				if err := conn.Close(); err != nil {
					return err.Error()
				}
				return ""
			})
		}
	})
	t.Run("the node's range is its pods'", func(t *testing.T) {
		if out := must(t, c, "", "get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDRs}"); out != `["10.220.0.0/24"]` {
			t.Error(out)
		}
	})
	t.Run("images", func(t *testing.T) {
		if err := c.Import(t.Context(), filepath.Join(o.Dir, "images", "pause.tar")); err != nil {
			t.Error(err)
		}
		if err := c.Import(t.Context(), "/nonexistent.tar"); err == nil || !strings.Contains(err.Error(), "/nonexistent.tar") {
			t.Errorf("an archive that is not there: %v", err)
		}
	})
	t.Run("a name is one cluster's", func(t *testing.T) {
		for _, other := range []cluster.Options{
			{Size: cluster.Node, Dir: tempDir(t), Name: "gotest", Subnet: 13},
			{Size: cluster.Node, Dir: tempDir(t), Name: "other", Subnet: 14},
		} {
			if _, err := cluster.Start(t.Context(), other); err == nil {
				t.Errorf("two clusters with name %q, subnet %d", other.Name, other.Subnet)
			}
		}
	})
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, host(t)); diff != "" {
		t.Errorf("what the cluster changed on the host:\n%s", diff)
	}
}

func TestNodeEndsWithItsProcess(t *testing.T) {
	before := baseline(t)
	dir := tempDir(t)
	cmd := holder(t, cluster.Options{Dir: dir, Size: cluster.Node, Name: "gotest", Subnet: 14})
	if len(processes(t, dir)) < 5 {
		t.Fatal("no processes")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, func() string { return strings.Join(inside(t), ", ") })
	if err := cluster.Clean(dir, "gotest"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, host(t)); diff != "" {
		t.Errorf("what the cluster changed on the host:\n%s", diff)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in its directory: %v, %v", left, err)
	}
}

func TestNodeRefused(t *testing.T) {
	for name, test := range map[string]struct {
		options cluster.Options
		want    string
	}{
		"long directory":   {cluster.Options{Dir: filepath.Join(t.TempDir(), strings.Repeat("d", 100))}, "at most 107 bytes"},
		"hidden directory": {cluster.Options{Dir: "/var/lib/metawire-test"}, "hidden inside a node"},
		"name":             {cluster.Options{Name: "Much too long"}, "at most 8"},
		"subnet":           {cluster.Options{Subnet: 16}, "0 to 15"},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.Size = cluster.Node
			if test.options.Dir == "" {
				test.options.Dir = tempDir(t)
			}
			defer os.RemoveAll(test.options.Dir)
			if _, err := cluster.Start(t.Context(), test.options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// baseline is host, without what an earlier run that was killed has left.
func baseline(t *testing.T) map[string][]string {
	t.Helper()
	if err := cluster.Clean(tempDir(t), "gotest"); err != nil {
		t.Fatal(err)
	}
	return host(t)
}

// host describes all of this machine that a node could change.
func host(t *testing.T) map[string][]string {
	t.Helper()
	state := map[string][]string{
		"processes in namespaces": inside(t),
		"cgroups":                 cgroups(t),
		"iptables":                run(t, "iptables-save"),
		"links":                   run(t, "ip", "-o", "link", "show"),
		"addresses":               run(t, "ip", "-o", "-4", "addr", "show"),
		"routes":                  run(t, "ip", "route", "show", "table", "all"),
		"namespaces":              run(t, "ip", "netns", "list"),
	}
	for _, file := range []string{
		"/proc/self/mountinfo", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/overcommit_memory",
		"/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		state[file] = strings.Split(string(content), "\n")
	}
	for _, dir := range []string{
		"/run", "/opt", "/etc/cni", "/var/lib/kubelet", "/var/lib/cni", "/var/lib/containerd", "/var/log/pods",
		"/var/log/containers", "/usr/libexec/kubernetes",
	} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			state[dir] = append(state[dir], e.Name())
		}
	}
	return state
}

func run(t *testing.T, name string, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	lines := strings.Split(string(out), "\n")
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "#") }) // dates
}

// inside returns the processes that are not in this process's pid namespace.
func inside(t *testing.T) []string {
	t.Helper()
	ours, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, link := range links {
		if theirs, err := os.Readlink(link); err == nil && theirs != ours {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(link)), "comm"))
			found[strings.TrimSpace(string(name))+" in "+theirs] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// cgroups returns the directories of all hierarchies.
func cgroups(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
