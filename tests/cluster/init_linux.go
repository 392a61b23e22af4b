package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// initName is argument 0 of the process that is pid 1 of a node.
const initName = "metawire-cluster-init"

// privateDirs are where components write at fixed places: mounts of the node's
// own, so that the host's are neither seen nor touched.
func privateDirs() []string { return []string{"/run", "/var/lib", "/var/log"} }

// initNode is pid 1 of a node: it makes the node's surroundings, starts the
// components and reaps. It ends when its standard input does, that is when the
// process that started it stops the cluster or ends in any way, or when a
// component ends.
func initNode() {
	if os.Args[0] != initName {
		return
	}
	if err := pid1(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // pid 1 of a node is a process of its own
	}
	os.Exit(0) //nolint:forbidigo // as above
}

// pid1 returns when the node has to end.
func pid1(stdin io.Reader) error {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the plan of the node: %w", err)
	}
	var p plan
	if err := json.Unmarshal(line, &p); err != nil {
		return fmt.Errorf("read the plan of the node: %w", err)
	}
	end := make(chan error, 1)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		end <- nil
	}()
	go func() {
		if err := p.bringUp(end); err != nil {
			end <- err
		}
	}()
	return <-end
}

// bringUp starts everything; a component that ends is reported to end.
func (p plan) bringUp(end chan<- error) error {
	if err := p.mounts(); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := p.network(); err != nil {
		return err
	}
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	r := &reaper{plan: p, end: end, child: make(chan os.Signal, 1), names: map[int]string{}}
	signal.Notify(r.child, syscall.SIGCHLD)
	go r.reap()
	if err := r.start(filepath.Join(p.Bin, etcd), p.etcd()); err != nil {
		return err
	}
	if err := r.start(containerd, component{"containerd", []string{"-c", p.path("containerd.toml")}}); err != nil {
		return err
	}
	if err := r.start(filepath.Join(p.Bin, apiServer), p.apiServer()); err != nil {
		return err
	}
	if err := p.waitAPI(); err != nil { // the others end when they do not find it
		return err
	}
	for _, c := range []component{p.controllerManager(), p.scheduler(), p.kubelet(), p.kubeProxy()} {
		if err := r.start(filepath.Join(p.Bin, c.name), c); err != nil {
			return err
		}
	}
	return nil
}

// waitAPI blocks until the API server is ready. It has no time limit: the
// parent's holds.
func (p plan) waitAPI() error {
	cert, err := tls.LoadX509KeyPair(p.path("pki", "admin.crt"), p.path("pki", "admin.key"))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert},
		InsecureSkipVerify: true, // our own network namespace; nothing is believed but "ready"
	}}}
	defer client.CloseIdleConnections()
	return poll(context.Background(), nil, func(ctx context.Context) error {
		_, err := get(ctx, client, p.apiURL()+"/readyz")
		return err
	})
}

// mounts makes the file system that the components see.
func (p plan) mounts() error {
	mount := func(source, target, fstype string, flags uintptr, data string) error {
		if err := syscall.Mount(source, target, fstype, flags, data); err != nil {
			return fmt.Errorf("mount %q on %s: %w", source, target, err)
		}
		return nil
	}
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	for _, dir := range privateDirs() {
		if err := mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	for source, target := range map[string]string{
		"kubelet": "/var/lib/kubelet", "varlog/pods": "/var/log/pods", "varlog/containers": "/var/log/containers",
	} {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := mount(p.path(source), target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return err
		}
	}
	// kubelet sets these when they differ, for the whole machine: show it the
	// values that it wants instead.
	for sysctl, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := "/run/" + strings.ReplaceAll(sysctl, "/", "_")
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(file, "/proc/sys/"+sysctl, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	// kubelet's mounts into containers need shared propagation.
	return mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

// network sets up the node's end of the veth.
func (p plan) network() error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", p.Net.NodeIP + "/30", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "via", p.Net.HostIP},
	} {
		if _, err := run("ip", args...); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// reaper starts components and waits for all processes of the node, those
// that lost their parent too, which os/exec must not do besides.
type reaper struct {
	plan  plan
	end   chan<- error
	child chan os.Signal

	mu    sync.Mutex // held from fork until the name is known
	names map[int]string
}

func (r *reaper) start(path string, c component) error {
	log, err := os.Create(r.plan.path("logs", c.name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, append([]string{c.name}, c.args...), &syscall.ProcAttr{
		Dir: r.plan.Dir, Env: os.Environ(), Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	r.names[pid] = c.name
	return nil
}

func (r *reaper) reap() {
	for range r.child {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
			r.mu.Lock()
			name := r.names[pid]
			r.mu.Unlock()
			if name != "" {
				how := fmt.Errorf("exit status %d, signal %d", status.ExitStatus(), status.Signal())
				r.end <- ended(name, how, r.plan.path("logs", name+".log"))
			}
		}
	}
}
