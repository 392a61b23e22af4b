package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// processDir holds the configuration and the log of a collector that runs as a
// process.
var processDir = filepath.Join("bin", "demo-collector")

// config is its configuration.
const config = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: %q}
metrics: {address: %q}
stream:
  enabled: true
  address: %q
  tls: {mode: disabled}
  authorization: disabled
`

// process is a collector that runs as a child of this process.
type process struct {
	kubeconfig, config, log string
	health, stream          string // addresses
}

// newProcess writes the configuration, with free ports of the loopback.
func newProcess(kubeconfig string) (*process, error) {
	addresses, err := free(3)
	if err != nil {
		return nil, fmt.Errorf("find free ports: %w", err)
	}
	p := &process{
		kubeconfig: kubeconfig, config: filepath.Join(processDir, "collector.yaml"), log: filepath.Join(processDir, "collector.log"),
		health: addresses[0], stream: addresses[2],
	}
	if err := os.MkdirAll(processDir, 0o755); err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.config, fmt.Appendf(nil, config, addresses[0], addresses[1], addresses[2]), 0o644)
}

// free returns addresses that nothing listens on.
func free(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

func (p *process) args() []string {
	return []string{"--config", p.config, "--kubeconfig", p.kubeconfig, "--log-format", "text"}
}

// command is what a user would type.
func (p *process) command() string {
	return "bin/collector --config " + p.config + " --kubeconfig " + p.kubeconfig
}

// start starts the collector and blocks until it is ready. It ends with ctx;
// running then waits for it.
func (p *process) start(ctx context.Context, running *sync.WaitGroup) error {
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join("bin", "collector"), p.args()...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the collector: %w", err)
	}
	ended := make(chan error, 1)
	running.Go(func() { ended <- cmd.Wait() })
	return until(ctx, func(ctx context.Context) (bool, error) {
		select {
		case err := <-ended:
			said, _ := os.ReadFile(p.log)
			return false, fmt.Errorf("the collector ended: %w: %s", err, bytes.TrimSpace(said))
		default:
			return p.ready(ctx), nil
		}
	})
}

func (p *process) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.health+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
