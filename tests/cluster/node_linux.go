package cluster

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

//go:embed node
var nodeFiles embed.FS

const (
	// cniPlugins is where Debian's containernetworking-plugins are.
	cniPlugins = "/usr/lib/cni"
	// socketPath is the longest path of a Unix socket.
	socketPath = 107
	// apiPort and the others are the defaults of Kubernetes: the node's
	// network namespace is its own.
	apiPort, etcdPort, peerPort, managerPort, schedulerPort = 6443, 2379, 2380, 10257, 10259
)

// node is the host's side of a cluster of size Node, which lives in mount,
// pid, net, uts and ipc namespaces of its own. When pid 1 of them ends, the
// kernel kills every process there, and with the last one go the mounts,
// bridges and iptables rules. What is left is the veth and the cgroups.
type node struct {
	plan    plan
	client  *http.Client
	release []func()

	init  *exec.Cmd
	pipe  io.WriteCloser // pid 1 ends when it is closed, by us or the kernel
	ended chan struct{}  // closed when pid 1 has ended

	mu      sync.Mutex
	stopped bool
	cause   error // why pid 1 ended, unless stopped
}

func startNode(ctx context.Context, c *Cluster, o Options) (_ *node, err error) {
	if o.Name == "" {
		o.Name = "test"
	}
	p := plan{
		Dir: c.dir, Bin: c.bin, Size: Node, Controllers: true, Name: o.Name, Net: newNetwork(o.Subnet),
		APIPort: apiPort, EtcdPort: etcdPort, PeerPort: peerPort, ManagerPort: managerPort, SchedulerPort: schedulerPort,
	}
	p.Address = p.Net.NodeIP
	if err := checkNode(p, o); err != nil {
		return nil, err
	}
	n := &node{plan: p, ended: make(chan struct{})}
	for _, name := range []string{"name " + o.Name, fmt.Sprintf("subnet %d", o.Subnet)} {
		release, err := claim(name)
		if err != nil {
			return nil, errors.Join(err, n.stop())
		}
		n.release = append(n.release, release)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	if err := removeNode(o.Name); err != nil { // of a process that was killed
		return nil, err
	}
	certs, err := n.writeFiles()
	if err != nil {
		return nil, err
	}
	n.client = &http.Client{Transport: &http.Transport{TLSClientConfig: certs.clientTLS()}}
	if err := cgroupsUp(p.cgroup()); err != nil {
		return nil, err
	}
	if err := n.boot(); err != nil {
		return nil, err
	}
	c.kubeconfig, c.auditLog, c.host = p.path("kubeconfig"), p.auditLog(), p.Net.HostIP
	return n, n.wait(ctx, c.log, o.Images)
}

// checkNode says what keeps a node from running here.
func checkNode(p plan, o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("size node needs root: it makes namespaces, and pods run in it")
	}
	if !regexp.MustCompile(`^[a-z0-9-]{1,8}$`).MatchString(o.Name) {
		return fmt.Errorf("name %q: want at most 8 of a-z, 0-9 and -", o.Name)
	}
	if o.Subnet < 0 || o.Subnet > maxSubnet {
		return fmt.Errorf("subnet %d: want 0 to %d", o.Subnet, maxSubnet)
	}
	if socket := p.path(containerdSocket + ".ttrpc"); len(socket) > socketPath {
		return fmt.Errorf("%s: a Unix socket's path has at most %d bytes; choose a shorter directory", socket, socketPath)
	}
	for _, dir := range []string{p.Dir, p.Bin} {
		for _, hidden := range privateDirs() {
			if strings.HasPrefix(dir+"/", hidden+"/") {
				return fmt.Errorf("%s: what is below %s is hidden inside a node", dir, hidden)
			}
		}
	}
	var missing []string
	for command, pkg := range Packages() {
		if _, err := exec.LookPath(command); err != nil {
			missing = append(missing, fmt.Sprintf("%s (Debian: %s)", command, pkg))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("size node needs %s; make cluster-packages installs them", strings.Join(missing, ", "))
	}
	for _, cidr := range []string{p.Net.NodePods, p.Net.Services, p.Net.HostIP} {
		routes, err := run("ip", "route", "show", "root", cidr)
		if err != nil {
			return err
		}
		if routes != "" && !strings.Contains(routes, "dev "+p.veth()) {
			return fmt.Errorf("addresses %s are in use: %s; choose another subnet", cidr, strings.TrimSpace(routes))
		}
	}
	return nil
}

func (p plan) cgroup() string { return "metawire-" + p.Name }
func (p plan) veth() string   { return "mw-" + p.Name }

// writeFiles writes certificates, configuration and images.
func (n *node) writeFiles() (*pki, error) {
	p := n.plan
	for _, d := range []string{"cni", "run", "kubelet", "varlog/pods", "varlog/containers", "containerd", "images"} {
		if err := os.MkdirAll(p.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	for name, to := range map[string]string{
		"kubelet.yaml": "kubelet.yaml", "proxy.yaml": "proxy.yaml", "coredns.yaml": "coredns.yaml",
		"containerd.toml": "containerd.toml", "ptp.conflist": "cni/10-ptp.conflist",
	} {
		content, err := nodeFiles.ReadFile("node/" + name)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(p.path(to), []byte(os.Expand(string(content), p.variable)), 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(p.path("audit.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.path("resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return nil, err
	}
	for name, image := range map[string]string{"pause": PauseImage, "coredns": coreDNSImage} {
		if err := programImage(p.path("images", name+".tar"), image, filepath.Join(p.Bin, name), "/"+name); err != nil {
			return nil, err
		}
	}
	return writePKI(p, "127.0.0.1", p.Net.KubernetesIP, p.Net.NodeIP)
}

// variable returns what ${name} stands for in the files of directory node.
func (p plan) variable(name string) string {
	return map[string]string{
		"Dir": p.Dir, "Cgroup": p.cgroup(), "Node": nodeName, "CNI": cniPlugins,
		"Pods": p.Net.Pods, "NodePods": p.Net.NodePods, "DNSIP": p.Net.DNSIP,
		"PauseImage": PauseImage, "CoreDNSImage": coreDNSImage,
	}[name]
}

// boot starts pid 1 and joins its network to the host's.
func (n *node) boot() error {
	p := n.plan
	log, err := os.Create(p.path("logs", "init.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	n.init, n.pipe = exec.Command("/proc/self/exe"), w
	n.init.Args = []string{initName} // what Init looks for
	n.init.Stdin, n.init.Stdout, n.init.Stderr = r, log, log
	n.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setpgid:    true, // a ctrl-C on the terminal is for us alone
	}
	if err := n.init.Start(); err != nil {
		n.init = nil
		return fmt.Errorf("start pid 1 of the node: %w", err)
	}
	go func() {
		err := n.init.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.stopped {
			n.cause = ended("the node", err, log.Name())
		}
		close(n.ended)
	}()
	for _, args := range [][]string{
		{"link", "add", p.veth(), "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(n.init.Process.Pid)},
		{"addr", "add", p.Net.HostIP + "/30", "dev", p.veth()},
		{"link", "set", p.veth(), "up"},
		{"route", "add", p.Net.NodePods, "via", p.Net.NodeIP, "dev", p.veth()},
		{"route", "add", p.Net.Services, "via", p.Net.NodeIP, "dev", p.veth()},
	} {
		if _, err := run("ip", args...); err != nil {
			return err
		}
	}
	return json.NewEncoder(w).Encode(p) // pid 1 waits for it
}

// wait blocks until pods can run and find each other by name.
func (n *node) wait(ctx context.Context, log *progress, images []string) (err error) {
	imported := make(chan error, 1)
	go func() {
		imported <- n.importAll(ctx, append([]string{n.plan.path("images", "pause.tar"), n.plan.path("images", "coredns.tar")}, images...))
	}()
	defer func() {
		select {
		case <-n.ended:
			n.mu.Lock()
			defer n.mu.Unlock()
			err = n.cause
		default:
		}
	}()
	if err := poll(ctx, n.ended, func(ctx context.Context) error {
		_, err := get(ctx, n.client, n.plan.apiURL()+"/readyz")
		return err
	}); err != nil {
		return fmt.Errorf("wait for the API server: %w", err)
	}
	log.step("the API server is ready")
	if err := n.applyDNS(ctx); err != nil {
		return err
	}
	if err := poll(ctx, n.ended, n.nodeReady); err != nil {
		return fmt.Errorf("wait for the node: %w", err)
	}
	log.step("the node is ready")
	if err := <-imported; err != nil {
		return err
	}
	if err := poll(ctx, n.ended, n.dnsReady); err != nil {
		return fmt.Errorf("wait for cluster DNS: %w", err)
	}
	log.step("cluster DNS is ready")
	return nil
}

func (n *node) applyDNS(ctx context.Context) error {
	// Namespace kube-system is there some time after the API server is ready.
	return poll(ctx, n.ended, func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, filepath.Join(n.plan.Bin, "kubectl"),
			"--kubeconfig="+n.plan.path("kubeconfig"), "--cache-dir="+n.plan.path("run", "kubectl"),
			"apply", "--server-side", "-f", n.plan.path("coredns.yaml")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("apply cluster DNS: %w: %s", err, out)
		}
		return nil
	})
}

func (n *node) nodeReady(ctx context.Context) error {
	var node struct {
		Spec struct {
			PodCIDR string `json:"podCIDR"`
		} `json:"spec"`
		Status struct {
			Conditions []struct{ Type, Status, Message string } `json:"conditions"`
		} `json:"status"`
	}
	answer, err := get(ctx, n.client, n.plan.apiURL()+"/api/v1/nodes/"+nodeName)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type != "Ready" {
			continue
		}
		if c.Status != "True" {
			return errors.New(c.Message)
		}
		if node.Spec.PodCIDR != n.plan.Net.NodePods {
			return fmt.Errorf("the node's pod range is %q, the one of its CNI %q", node.Spec.PodCIDR, n.plan.Net.NodePods)
		}
		return nil
	}
	return errors.New("the node has not said that it is ready")
}

func (n *node) dnsReady(ctx context.Context) error {
	answer, err := get(ctx, n.client, n.plan.apiURL()+"/apis/apps/v1/namespaces/kube-system/deployments/coredns")
	if err != nil {
		return err
	}
	var deployment struct {
		Status struct {
			AvailableReplicas int `json:"availableReplicas"`
		} `json:"status"`
	}
	if err := json.Unmarshal(answer, &deployment); err != nil {
		return err
	}
	if deployment.Status.AvailableReplicas == 0 {
		return errors.New("coredns has no available replica")
	}
	return nil
}

// importAll imports archives as soon as containerd takes them.
func (n *node) importAll(ctx context.Context, archives []string) error {
	if err := poll(ctx, n.ended, func(context.Context) error {
		conn, err := net.Dial("unix", n.plan.path(containerdSocket))
		if err != nil {
			return err
		}
		return conn.Close()
	}); err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	for _, a := range archives {
		if err := ImportInto(ctx, n.plan.Dir, a); err != nil {
			return err
		}
	}
	return nil
}

// stop ends pid 1 and removes what the kernel does not. Start calls it at any
// stage.
func (n *node) stop() error {
	n.mu.Lock()
	n.stopped = true
	n.mu.Unlock()
	var err error
	if n.pipe != nil {
		err = n.pipe.Close()
	}
	if n.init != nil {
		<-n.ended
	}
	if len(n.release) == 2 { // else the name is another cluster's
		err = errors.Join(err, removeNode(n.plan.Name))
	}
	for _, r := range n.release {
		r()
	}
	if n.client != nil {
		n.client.CloseIdleConnections()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(n.cause, err)
}

// removeNode removes what a node leaves on the host.
func removeNode(name string) error {
	p := plan{Name: name}
	// A network namespace lives on for a minute in closing sockets, and the
	// veth with it.
	if _, err := net.InterfaceByName(p.veth()); err == nil {
		if _, err := run("ip", "link", "del", p.veth()); err != nil {
			return err
		}
	}
	return cgroupsDown(p.cgroup())
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
