package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
)

// controlPlane is the components of size ControlPlane as child processes.
type controlPlane struct {
	plan    plan
	client  *http.Client
	starter starter
	release func()

	ended chan struct{} // closed when a component ended that nobody killed

	mu       sync.Mutex
	running  map[string]*process
	expected map[*process]bool // was killed
	cause    error             // why ended is closed
	stopped  bool
}

func startControlPlane(ctx context.Context, c *Cluster, o Options) (_ *controlPlane, err error) {
	ports, release, err := claimPorts(5)
	if err != nil {
		return nil, err
	}
	p := plan{
		Dir: c.dir, Bin: c.bin, Size: ControlPlane, Controllers: o.Controllers, Address: "127.0.0.1",
		APIPort: ports[0], EtcdPort: ports[1], PeerPort: ports[2],
		ManagerPort: ports[3], SchedulerPort: ports[4], Net: newNetwork(o.Subnet),
	}
	if o.Port != 0 {
		p.APIPort = o.Port
		if err := portFree(o.Port); err != nil {
			release()
			return nil, fmt.Errorf("the API server's port is taken: %w", err)
		}
	}
	cp := &controlPlane{
		plan: p, starter: newStarter(), release: release, ended: make(chan struct{}),
		running: map[string]*process{}, expected: map[*process]bool{},
	}
	defer func() {
		if err != nil {
			_ = cp.stop()
		}
	}()
	certs, err := writePKI(p, p.Address, p.Net.KubernetesIP)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.path("audit.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return nil, err
	}
	cp.client = &http.Client{Transport: &http.Transport{TLSClientConfig: certs.clientTLS()}}
	c.kubeconfig, c.auditLog, c.etcd = p.path("kubeconfig"), p.auditLog(), p.etcdURL()
	for _, component := range cp.components() {
		if err := cp.start(component); err != nil {
			return nil, err
		}
		if err := cp.wait(ctx, component.name); err != nil {
			return nil, err
		}
		c.log.step("%s is ready", component.name)
	}
	return cp, poll(ctx, cp.ended, cp.usable)
}

// components returns what runs, in the order of their needs.
func (cp *controlPlane) components() []component {
	all := []component{cp.plan.etcd(), cp.plan.apiServer()}
	if cp.plan.Controllers {
		all = append(all, cp.plan.controllerManager(), cp.plan.scheduler())
	}
	return all
}

func (cp *controlPlane) start(c component) error {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if cp.stopped {
		return errors.New("the cluster is stopped")
	}
	run, err := cp.starter.run(cp.plan, c)
	if err != nil {
		return err
	}
	cp.running[c.name] = run
	go func() {
		<-run.done
		cp.mu.Lock()
		defer cp.mu.Unlock()
		if !cp.expected[run] && cp.cause == nil {
			cp.cause = run.err
			close(cp.ended)
		}
		delete(cp.expected, run)
	}()
	return nil
}

// wait blocks until a component answers as ready.
func (cp *controlPlane) wait(ctx context.Context, name string) error {
	cp.mu.Lock()
	run := cp.running[name]
	cp.mu.Unlock()
	url := map[string]string{
		etcd:              cp.plan.etcdURL() + "/health",
		apiServer:         cp.plan.apiURL() + "/readyz",
		controllerManager: fmt.Sprintf("https://127.0.0.1:%d/healthz", cp.plan.ManagerPort),
		scheduler:         fmt.Sprintf("https://127.0.0.1:%d/readyz", cp.plan.SchedulerPort),
	}[name]
	err := poll(ctx, run.done, func(ctx context.Context) error {
		_, err := get(ctx, cp.client, url)
		return err
	})
	select {
	case <-run.done:
		return run.err
	default:
	}
	if err != nil {
		return fmt.Errorf("wait for %s: %w", name, err)
	}
	return nil
}

// usable tells whether pods can be made: the API server makes the namespaces,
// and the controllers their ServiceAccounts, some time after it is ready.
func (cp *controlPlane) usable(ctx context.Context) error {
	path := "/api/v1/namespaces/default"
	if cp.plan.Controllers {
		path += "/serviceaccounts/default"
	}
	_, err := get(ctx, cp.client, cp.plan.apiURL()+path)
	return err
}

// kill ends a component at once; it may have ended before.
func (cp *controlPlane) kill(name string) error {
	cp.mu.Lock()
	run := cp.running[name]
	if run == nil {
		cp.mu.Unlock()
		return fmt.Errorf("no component %q in this cluster", name)
	}
	select {
	case <-run.done:
	default:
		cp.expected[run] = true
	}
	cp.mu.Unlock()
	if err := run.cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	<-run.done
	return nil
}

func (cp *controlPlane) restart(ctx context.Context, name string, flags []string) error {
	if err := cp.kill(name); err != nil {
		return err
	}
	for _, c := range cp.components() {
		if c.name != name {
			continue
		}
		c.args = append(c.args, flags...)
		if err := cp.start(c); err != nil {
			return err
		}
	}
	return cp.wait(ctx, name)
}

func (cp *controlPlane) stop() error {
	cp.mu.Lock()
	cp.stopped = true
	cp.mu.Unlock()
	for _, c := range slices.Backward(cp.components()) {
		if cp.running[c.name] == nil {
			continue // Start failed before
		}
		if err := cp.kill(c.name); err != nil {
			return err
		}
	}
	cp.starter.close()
	cp.release()
	if cp.client != nil {
		cp.client.CloseIdleConnections()
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if cp.cause == nil {
		select {
		case <-cp.ended:
		default:
			close(cp.ended)
		}
	}
	return cp.cause
}
