// Package image makes what a Falco is made of where no registry can be reached:
// the image of the stand-in, and a registry that has the plugin's artifact.
package image

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/metawire/metawire/tests/cluster"
)

// Falco is the name of the image, as the webhook recognizes it; Client is the
// same image by a name that it does not.
const (
	Falco  = "docker.io/falcosecurity/falco:0.43.1"
	Client = "example.test/client:1"
)

// LibraryPath is where the image has a library of the plugin, which says
// Preinstalled. Falco's own image has none.
const (
	LibraryPath  = "/usr/share/falco/plugins/libk8smeta.so"
	Preinstalled = "preinstalled"
)

// Build compiles the stand-in and writes its image as a docker-archive.
func Build(ctx context.Context, archive string) error {
	dir, err := os.MkdirTemp("", "falco-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "falco")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/metawire/metawire/tests/falco")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the stand-in for Falco: %w: %s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	return cluster.Image{
		Names: []string{Falco, Client},
		Cmd:   []string{"/usr/bin/falco"}, // as Falco's own: no entrypoint
		Files: map[string][]byte{
			"/usr/bin/falco":        content,
			"/etc/falco/falco.yaml": []byte("config_files: [/etc/falco/config.d]\nload_plugins: []\nplugins: []\n"),
			"/etc/falco/config.d/falco.container_plugin.yaml": []byte("load_plugins: [container]\nplugins:\n- {name: container, library_path: libcontainer.so}\n"),
			LibraryPath: Library(Preinstalled),
		},
	}.Write(archive)
}

// Library is a file that passes for a shared library of this machine, and says
// a text.
func Library(text string) []byte {
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	binary.LittleEndian.PutUint16(head[18:], uint16(machine))
	return append(head, text...)
}
