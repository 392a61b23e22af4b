// Package integration_test runs the collector, as the process that users run,
// on a real API server, and subscribes to it as Falco's plugin does. What the
// subscribers know is held against what the API server says.
package integration_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/metawire/metawire/tests/cluster"
)

// patience is how long a test waits for what must happen. Reflectors come back
// from a failure after up to 15 s.
const patience = 60 * time.Second

// The cluster and the program that all tests of the package share. Tests that
// take the cluster down, or count what happens in it, do not run in parallel
// with others.
var (
	plane   *cluster.Cluster
	api     client.Client
	apiREST *rest.Config
	program string
)

func TestMain(m *testing.M) {
	code, err := setUp(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // TestMain is a main
}

func setUp(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "integration-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctrllog.SetLogger(logr.Discard())
	program = filepath.Join(dir, "collector")
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // a first build of Kubernetes is in it
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/metawire/metawire/cmd/collector").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the collector: %w: %s", err, out)
	}
	if plane, err = cluster.Start(ctx, cluster.Options{Size: cluster.ControlPlane, Dir: filepath.Join(dir, "cluster"), Log: os.Stderr}); err != nil {
		return 0, err
	}
	defer func() {
		if stopErr := plane.Stop(); err == nil {
			err = stopErr
		}
	}()
	if apiREST, err = clientcmd.BuildConfigFromFlags("", plane.Kubeconfig()); err != nil {
		return 0, err
	}
	apiREST.QPS = -1
	if api, err = client.New(apiREST, client.Options{Scheme: scheme.Scheme}); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// eventually waits until the condition returns nil.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", patience, err)
		}
		<-tick.C
	}
}
