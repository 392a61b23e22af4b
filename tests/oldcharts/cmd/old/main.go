// Command old puts a release of an old chart into the cluster of make cluster, so
// that metawire migrate can be tried by hand:
//
//	go run ./tests/oldcharts/cmd/old -chart k8s-metacollector -n falco
//	go run ./tests/oldcharts/cmd/old -chart firefly-k8s-collector -n firefly -endpoint http://10.224.0.1:8080
//
// An inventory logs in with the keys demo-access-key and demo-secret-key, as
// metawire inventory receive takes them by its flags.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/metawire/metawire/tests/oldcharts"
	"github.com/metawire/metawire/tests/oldcharts/image"
)

func main() {
	var o options
	flag.StringVar(&o.chart, "chart", oldcharts.Metacollector, "which old chart")
	flag.StringVar(&o.release, "release", "", "name of the release (default: the chart's)")
	flag.StringVar(&o.namespace, "n", "default", "namespace, which is created")
	flag.StringVar(&o.endpoint, "endpoint", "", "URL that an inventory is sent to")
	flag.StringVar(&o.dir, "dir", ".cluster", "directory of the cluster")
	flag.Parse()
	if o.release == "" {
		o.release = o.chart
	}
	if err := o.install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options struct{ chart, release, namespace, endpoint, dir string }

func (o options) install(ctx context.Context) error {
	temp, err := os.MkdirTemp("", "old-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	archive := filepath.Join(temp, "old.tar")
	if err := image.Build(ctx, archive); err != nil {
		return err
	}
	load := exec.CommandContext(ctx, "go", "run", "./tests/cluster/cmd/cluster", "import", "-dir", o.dir, archive)
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("load the image: %w: %s", err, out)
	}
	helm, err := oldcharts.Helm(filepath.Join(o.dir, "kubeconfig"), temp, o.namespace)
	if err != nil {
		return err
	}
	if err := oldcharts.Install(ctx, helm, o.chart, o.release, o.namespace, o.values(), false, true); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "release %s of chart %s is in namespace %s\n", o.release, o.chart, o.namespace)
	return nil
}

func (o options) values() map[string]any {
	v := map[string]any{"image": map[string]any{"pullPolicy": "Never"}}
	if o.chart == oldcharts.Metacollector {
		return v
	}
	v["clusterId"], v["accessKey"], v["secretKey"], v["apiEndpoint"] = "demo", "demo-access-key", "demo-secret-key", o.endpoint
	if o.chart == oldcharts.Firefly {
		v["loginEndpoint"] = o.endpoint
	}
	return v
}
