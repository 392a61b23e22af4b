// Package image makes the image that the old charts run in tests.
package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/metawire/metawire/tests/cluster"
)

// configuration lets our collector be the predecessor's.
const configuration = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: ":8081"}
metrics: {address: "127.0.0.1:18080"}
stream: {enabled: true, address: ":45000", tls: {mode: disabled}, authorization: disabled}
`

// Build compiles the stand-ins and writes their image as a docker-archive, under
// the names that the charts have for theirs.
func Build(ctx context.Context, archive string) error {
	dir, err := os.MkdirTemp("", "oldcharts-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "program")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/metawire/metawire/tests/oldcharts/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the stand-ins for the old collectors: %w: %s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	files := map[string][]byte{"/etc/meta-collector.yaml": []byte(configuration)}
	for _, name := range []string{"meta-collector", "k8s-collector", "boarder"} {
		files["/"+name] = content
	}
	return cluster.Image{
		Names: []string{
			"docker.io/falcosecurity/k8s-metacollector:0.1.1",
			"docker.io/infralightio/k8s-collector:2.9.0", "docker.io/infralightio/k8s-collector:1.3.1",
			"docker.io/infralightio/k8-collector-offboarder:2.9.0",
		},
		Files: files,
	}.Write(archive)
}
