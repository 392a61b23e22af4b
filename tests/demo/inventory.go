package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

const (
	clusterID = "demo"
	// inventoryPort is where the release of our own cluster sends to: it stays the
	// same, so that a second demo changes nothing in it.
	inventoryPort = "8090"
)

// onceConfig is what metawire inventory --once sends, where there is no release.
const onceConfig = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
clusterID: ` + clusterID + `
inventory:
  endpoint: http://%s/ingest
  resources: [namespaces, nodes, pods, services, deployments.apps, replicasets.apps]
`

// inventoryAddress is where this process can be reached by pods of our own
// cluster: its address on the way to the node.
func inventoryAddress(ctx context.Context, s *site) (string, error) {
	api, err := url.Parse(s.config.Host)
	if err != nil {
		return "", fmt.Errorf("address of the API server: %w", err)
	}
	c, err := new(net.Dialer).DialContext(ctx, "udp", api.Host) // sends nothing
	if err != nil {
		return "", fmt.Errorf("find the way to the API server: %w", err)
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	return net.JoinHostPort(host, inventoryPort), err
}

// inventory lets the release send to an endpoint here.
func (n *node) inventory(ctx context.Context, s *site) error {
	address, err := inventoryAddress(ctx, s)
	if err != nil {
		return err
	}
	return n.receive(ctx, s, address, "trigger")
}

// inventory sends from here: there is no release.
func (c *controlPlane) inventory(ctx context.Context, s *site) error {
	addresses, err := free(1)
	if err != nil {
		return err
	}
	file := filepath.Join(processDir, "inventory.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, onceConfig, addresses[0]), 0o644); err != nil {
		return err
	}
	return c.receive(ctx, s, addresses[0], "--once", "--config", file)
}

// inventory says what would be shown: pods there do not reach this machine.
func (t *theirs) inventory(context.Context, *site) error {
	t.screen.line("  An inventory needs an endpoint that pods reach; what it would send: bin/metawire inventory --dry-run")
	return nil
}

// receive is an endpoint at the address while a command sends one run, and says
// what came of it, on both sides.
func (d *demo) receive(ctx context.Context, s *site, address string, args ...string) error {
	d.screen.title("The inventory: the cluster's objects, without credentials, to the reference receiver at " + address)
	endpoint := receiver.New(receiver.Options{})
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("be an endpoint of the inventory: %w", err)
	}
	server := &http.Server{Handler: endpoint, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // until it is closed; before that the sender says what is wrong
	}()
	args = append(append([]string{"inventory"}, args...), "--kubeconfig", s.kubeconfig)
	d.screen.line(d.screen.paint(bold, "$ bin/metawire "+strings.Join(args, " ")))
	out, err := exec.CommandContext(ctx, filepath.Join("bin", "metawire"), args...).CombinedOutput()
	_ = server.Close()
	<-served
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil {
		return fmt.Errorf("metawire inventory: %w:\n%s", err, strings.Join(lines, "\n"))
	}
	d.screen.line("  " + lines[len(lines)-1]) // above it is a line for each type
	return d.arrived(ctx, s, endpoint.Kept())
}

// arrived says what the endpoint has.
func (d *demo) arrived(ctx context.Context, s *site, kept receiver.Kept) error {
	sample, err := s.api.AppsV1().Deployments(shop).Get(ctx, web, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the sample Deployment: %w", err)
	}
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(kept.Objects[string(sample.UID)], &o); err != nil {
		return fmt.Errorf("the sample Deployment has not arrived as it is: %w", err)
	}
	labels, err := json.Marshal(o.Labels)
	if err != nil {
		return err
	}
	d.screen.line(fmt.Sprintf("  the receiver has %d objects; one of them is %s %s/%s, labels %s", len(kept.Objects), o.Kind, o.Namespace, o.Name, labels))
	return nil
}
