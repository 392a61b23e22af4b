package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// CertManagerNamespace is where cert-manager looks for the Secrets of
// ClusterIssuers.
const CertManagerNamespace = "cert-manager"

const (
	certManager       = "certmanager"
	certManagerModule = "github.com/cert-manager/cert-manager"
	certManagerDir    = "addons/certmanager"
)

// CertManager defines cert-manager's kinds and starts its controllers and
// cainjector, without its webhook, as a process of this machine. It builds
// CertManagerSet unless that was done, and blocks until the kinds are served,
// not until the controllers act: what is applied before, they find. A cluster
// takes one at a time.
//
// ctx does not end the process that was started: stop does, or Stop, or the
// end of this process, however it ends. stop kills it, waits for its end and
// leaves its objects; it and Stop return an error if it had ended by itself.
// Further calls of stop do nothing and return the same.
func (c *Cluster) CertManager(ctx context.Context) (stop func() error, err error) {
	bin, err := Binaries(ctx, c.log.w, CertManagerSet)
	if err != nil {
		return nil, err
	}
	if err := c.defineCertManager(ctx); err != nil {
		return nil, err
	}
	stop, err = c.runBeside(plan{Dir: c.dir, Bin: bin}, component{certManager, []string{
		"-kubeconfig=" + c.kubeconfig, "-cluster-resource-namespace=" + CertManagerNamespace,
	}})
	if err != nil {
		return nil, err
	}
	c.log.step("cert-manager has started")
	return stop, nil
}

// defineCertManager applies the definitions that the controllers are built
// with, and blocks until the API server serves them.
func (c *Cluster) defineCertManager(ctx context.Context) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	// Not go list: the binary may be older than the cache of modules.
	answer, err := output(ctx, filepath.Join(root, "tests", "cluster", certManagerDir), "go", "mod", "download", "-json", certManagerModule)
	if err != nil {
		return err
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal([]byte(answer), &downloaded); err != nil {
		return fmt.Errorf("find %s: %w", certManagerModule, err)
	}
	definitions := filepath.Join(downloaded.Dir, "deploy", "crds")
	if err := c.kubectl(ctx, "", "apply", "--server-side", "-f", definitions); err != nil {
		return err
	}
	const namespace = `{apiVersion: v1, kind: Namespace, metadata: {name: ` + CertManagerNamespace + `}}`
	if err := c.kubectl(ctx, namespace, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	return c.kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "-f", definitions)
}

// kubectl runs kubectl as the administrator.
func (c *Cluster) kubectl(ctx context.Context, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "kubectl"),
		append([]string{"--kubeconfig=" + c.kubeconfig, "--cache-dir=" + filepath.Join(c.dir, "run", "kubectl")}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// runBeside starts a process that is no component but ends with the cluster.
func (c *Cluster) runBeside(p plan, what component) (stop func() error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil, errors.New("the cluster is stopped")
	}
	s := newStarter()
	run, err := s.run(p, what)
	if err != nil {
		s.close()
		return nil, err
	}
	stop = sync.OnceValue(func() error {
		defer s.close()
		select {
		case <-run.done:
			return run.err
		default:
		}
		_ = run.cmd.Process.Signal(syscall.SIGKILL)
		<-run.done
		if status, ok := run.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			return nil
		}
		return run.err // it was faster
	})
	c.beside = append(c.beside, stop)
	return stop, nil
}

// stopBeside ends what runs beside the cluster, and lets nothing more start.
func (c *Cluster) stopBeside() error {
	c.mu.Lock()
	c.stopped = true
	beside := c.beside
	c.mu.Unlock()
	var errs []error
	for _, stop := range beside {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}
