package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

// inventoryFile makes one run of the inventory from a process of its own.
const inventoryFile = `
apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
clusterID: bench
inventory: {enabled: true, endpoint: %q, resources: [%s]}
`

// inventory measures what a run takes, beside one that lists next to nothing: its
// peak of resident memory, and the time an object.
func (b *bench) inventory(ctx context.Context) (err error) {
	endpoint := receiver.New(receiver.Options{})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: endpoint, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		_ = server.Close()
		if end := <-served; !errors.Is(end, http.ErrServerClosed) {
			err = errors.Join(err, end)
		}
	}()
	url := "http://" + l.Addr().String()
	idle, _, err := b.ship(ctx, url, "namespaces")
	if err != nil {
		return err
	}
	_, half, err := b.ship(ctx, url, "namespaces", "pods")
	if err != nil {
		return err
	}
	pods := len(endpoint.Kept().Objects)
	peak, took, err := b.ship(ctx, url, "namespaces", "pods", "replicasets.apps", "deployments.apps", "services", "endpointslices.discovery.k8s.io")
	if err != nil {
		return err
	}
	all := len(endpoint.Kept().Objects)
	b.report.judge(goalInventory, mib(peak), fmt.Sprintf("namespaces alone %s; %d objects in %.1f s, %d in %.1f s",
		mib(idle), all, took.Seconds(), pods, half.Seconds()), mebibytes(peak-idle))
	return nil
}

// ship makes a run and returns its peak of resident memory and the time it took.
func (b *bench) ship(ctx context.Context, url string, types ...string) (peak int64, took time.Duration, err error) {
	file := filepath.Join(b.stage.dir, "inventory.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, inventoryFile, url, strings.Join(types, ", ")), 0o600); err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, b.binary, "--inventory-once", "--config", file, "--kubeconfig", b.stage.cluster.Kubeconfig(), "--log-format", "text")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// What wait tells (ru_maxrss) counts the memory of this process too.
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case err := <-ended:
			tick.Stop()
			if err != nil {
				return 0, 0, fmt.Errorf("a run of the inventory: %w: %.2000s", err, out.String())
			}
			return peak, time.Since(began), nil
		case <-tick.C:
			if _, most, err := residentMemory(cmd.Process.Pid); err == nil {
				peak = max(peak, most)
			}
		}
	}
}
