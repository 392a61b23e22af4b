// Package cluster boots a real Kubernetes for tests, benches and the demo:
// the released commands of Kubernetes and etcd, built from Go modules.
//
// It knows nothing of the project that is tested with it.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// Size says how much of a cluster is started.
type Size string

const (
	// ControlPlane is etcd and the API server, and with Options.Controllers
	// the controller manager and the scheduler: child processes on free
	// loopback ports. It needs no root. Pods never run.
	ControlPlane Size = "control-plane"
	// Node is a control plane and one node on which pods really run, with
	// cluster DNS, in namespaces of its own. It needs Linux and root.
	Node Size = "node"
)

// Options says what Start starts. Only Size is required.
type Options struct {
	// Dir keeps state and logs. With size Node it must not be below /run,
	// /var/lib or /var/log, and must be short: a Unix socket in it has at
	// most 107 bytes. Default: a temporary directory that Stop removes.
	Dir string
	// Bin is the directory of the binaries. Default: Binaries builds them.
	Bin string
	// Size is ControlPlane or Node.
	Size Size
	// Controllers adds the controller manager and the scheduler to a
	// ControlPlane. Without them nothing makes pods, ServiceAccounts or
	// EndpointSlices but the caller, and pods need no ServiceAccount.
	Controllers bool
	// Port is the API server's port for size ControlPlane. Default: a free one.
	Port int
	// Images are image archives (docker-archive or OCI) for size Node.
	Images []string
	// Name is part of the names of cgroups and the veth of size Node, at
	// most 8 of a-z, 0-9 and -. Default: "test". Two clusters on one machine
	// need two names and two Subnets.
	Name string
	// Subnet, 0 to 15, picks the address ranges of size Node.
	Subnet int
	// Log takes progress lines. Default: none.
	Log io.Writer
}

// Cluster is a running cluster. Its methods may be called from any goroutine.
type Cluster struct {
	dir, bin, kubeconfig, auditLog, etcd, host string

	log      *progress
	lock     *os.File
	ownDir   bool
	plane    *controlPlane // of size ControlPlane
	node     *node         // of size Node
	ended    <-chan struct{}
	stopOnce sync.Once
	stopErr  error

	mu      sync.Mutex
	beside  []func() error // stops what runs beside the components
	stopped bool
}

// Start boots a cluster. It blocks until the cluster can be used: the API
// server is ready and, with size Node, the node and cluster DNS are. When it
// fails or ctx ends first nothing is left running. ctx does not end a cluster
// that was started: Stop does, or the end of this process, however it ends.
//
// ErrRunning is returned when another cluster uses Dir.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	if o.Size != ControlPlane && o.Size != Node {
		return nil, fmt.Errorf("size %q: want %q or %q", o.Size, ControlPlane, Node)
	}
	c := &Cluster{bin: o.Bin, log: newProgress(o.Log)}
	if err := c.openDir(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.closeDir()
		}
	}()
	if c.bin == "" {
		if c.bin, err = Binaries(ctx, o.Log, Set(o.Size)); err != nil {
			return nil, err
		}
	}
	c.log.start = time.Now()
	if o.Size == ControlPlane {
		if c.plane, err = startControlPlane(ctx, c, o); err != nil {
			return nil, err
		}
		c.ended = c.plane.ended
		return c, nil
	}
	if c.node, err = startNode(ctx, c, o); err != nil {
		return nil, err
	}
	c.ended = c.node.ended
	return c, nil
}

// ErrRunning means that a directory is in use by a running cluster.
var ErrRunning = errors.New("a cluster runs in this directory")

// openDir makes the directory of a cluster, or an empty one of a stopped one.
func (c *Cluster) openDir(dir string) (err error) {
	if dir == "" {
		c.ownDir = true
		if dir, err = os.MkdirTemp("", "cluster-"); err != nil {
			return err
		}
	}
	if c.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "logs"), 0o755); err != nil {
		return err
	}
	if c.lock, err = lock(filepath.Join(c.dir, "lock")); err != nil {
		return fmt.Errorf("%w: %s", ErrRunning, c.dir)
	}
	if err := os.RemoveAll(filepath.Join(c.dir, "logs")); err != nil {
		return err
	}
	if err := removeData(c.dir); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(c.dir, "logs"), 0o755)
}

// closeDir removes what the cluster kept in its directory but its logs.
func (c *Cluster) closeDir() error {
	err := removeData(c.dir)
	if c.ownDir {
		err = os.RemoveAll(c.dir)
	}
	return errors.Join(err, c.lock.Close())
}

// Clean removes what a cluster left in dir, and with size Node under name,
// whose process was killed. Its logs go too. Start does the same first.
func Clean(dir, name string) error {
	c := &Cluster{}
	if err := c.openDir(dir); err != nil {
		return err
	}
	release, err := claim("name " + name)
	if err != nil {
		return errors.Join(err, c.closeDir())
	}
	defer release()
	return errors.Join(removeNode(name), c.closeDir(), os.RemoveAll(filepath.Join(c.dir, "logs")), os.Remove(c.lock.Name()))
}

// removeData removes what a cluster keeps in its directory, by name: the
// directory may be one that the caller keeps other things in.
func removeData(dir string) error {
	var errs []error
	for _, d := range []string{"etcd", "pki", "cni", "images", "containerd", "kubelet", "run", "varlog"} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, d)))
	}
	for _, pattern := range []string{"*kubeconfig", "*.yaml", "*.toml", "resolv.conf", "containerd.sock*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		errs = append(errs, err)
		for _, f := range files {
			errs = append(errs, os.Remove(f))
		}
	}
	return errors.Join(errs...)
}

// Init must be called first in main or TestMain of a program that starts
// clusters of size Node: it does not return in the process that Start
// executes again as pid 1 of the node.
func Init() { initNode() }

// Kubeconfig returns the path of the administrator's kubeconfig, which has the
// certificates in it.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig }

// AuditLog returns the path of the API server's audit log: JSON lines, one
// audit.k8s.io/v1 Event each, of list and watch requests at level Metadata in
// the stages ResponseStarted (watch), ResponseComplete and Panic.
func (c *Cluster) AuditLog() string { return c.auditLog }

// EtcdEndpoint returns the URL of etcd, which needs no credentials and speaks
// JSON besides gRPC (POST /v3/kv/range and so on). Empty with size Node.
func (c *Cluster) EtcdEndpoint() string { return c.etcd }

// Bin returns the directory of the binaries, kubectl among them.
func (c *Cluster) Bin() string { return c.bin }

// HostIP returns the address at which pods reach servers of this process.
// Empty with size ControlPlane.
func (c *Cluster) HostIP() string { return c.host }

// Compact compacts etcd up to its current revision, which it returns. A watch
// at an older resourceVersion then gets 410 Gone once the API server's own
// watch cache does not hold that version any more, that is after Restart of
// "kube-apiserver"; a list continuation gets it at once.
func (c *Cluster) Compact(ctx context.Context) (int64, error) {
	if c.plane == nil {
		return 0, errNode
	}
	return compact(ctx, c.plane.client, c.etcd)
}

// errNode is returned by what only size ControlPlane can do.
var errNode = errors.New("not with size node")

// Kill ends a component of a ControlPlane with SIGKILL and waits for its end:
// "etcd", "kube-apiserver", "kube-controller-manager" or "kube-scheduler".
// To kill one that has ended does nothing.
func (c *Cluster) Kill(component string) error {
	if c.plane == nil {
		return errNode
	}
	return c.plane.kill(component)
}

// Restart kills a component of a ControlPlane if it runs and starts it again
// on the same port and data. It blocks until the component is ready or ctx
// ends. An API server is not ready without etcd. The flags are added to the
// component's own until it is started again.
func (c *Cluster) Restart(ctx context.Context, component string, flags ...string) error {
	if c.plane == nil {
		return errNode
	}
	return c.plane.restart(ctx, component, flags)
}

// Import loads an image archive (docker-archive or OCI) into the containerd of
// size Node.
func (c *Cluster) Import(ctx context.Context, archive string) error {
	if c.node == nil {
		return errors.New("only size node has images")
	}
	return ImportInto(ctx, c.dir, archive)
}

// ImportInto is Import for the cluster that another process runs in dir.
func ImportInto(ctx context.Context, dir, archive string) error {
	out, err := exec.CommandContext(ctx, "ctr", "--address="+filepath.Join(dir, containerdSocket), "--namespace=k8s.io",
		"images", "import", archive).CombinedOutput()
	if err != nil {
		return fmt.Errorf("import %s: %w: %s", archive, err, out)
	}
	return nil
}

// containerdSocket is in the directory of a cluster of size Node.
const containerdSocket = "containerd.sock"

// Done is closed when the cluster has stopped or a component ended that was
// not killed by Kill, Restart or Stop; Stop then returns what ended.
func (c *Cluster) Done() <-chan struct{} { return c.ended }

// Stop ends the cluster and waits until everything of it is gone but the logs
// in Dir. Further calls do nothing and return the same error.
func (c *Cluster) Stop() error {
	c.stopOnce.Do(func() {
		c.stopErr = c.stopBeside()
		if c.plane != nil {
			c.stopErr = errors.Join(c.stopErr, c.plane.stop())
		} else {
			c.stopErr = errors.Join(c.stopErr, c.node.stop())
		}
		c.stopErr = errors.Join(c.stopErr, c.closeDir())
	})
	return c.stopErr
}
