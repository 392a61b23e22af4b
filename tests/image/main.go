// Command image builds the project's image from its Dockerfile, with whatever
// engine works, and writes it as a docker-archive. Where no registry can be
// reached it builds offline: see offline_linux.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/metawire/metawire/tests/cluster/debian"
)

// registry is asked whether registries can be reached: the base image's.
const registry = "https://registry-1.docker.io/v2/"

// reachTimeout is for that question.
const reachTimeout = 5 * time.Second

// build is what has to be built.
type build struct {
	context string // directory with the Dockerfile
	name    string // of the image, with its tag
	version string
	arch    string // that it runs on: amd64, arm64
	archive string // file to write
	out     io.Writer
}

func main() {
	b := build{out: os.Stdout}
	flag.StringVar(&b.context, "context", ".", "directory with the Dockerfile")
	repository := flag.String("repository", "ghcr.io/metawire/metawire", "name of the image")
	flag.StringVar(&b.version, "version", "dev", "tag of the image, and the version that its programs tell")
	flag.StringVar(&b.arch, "arch", runtime.GOARCH, "architecture that it runs on; what is built is cross-compiled, not emulated")
	flag.StringVar(&b.archive, "o", "bin/image/metawire.tar", "docker-archive to write")
	flag.Parse()
	b.name = *repository + ":" + b.version
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	start := time.Now()
	err := b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Fprintf(b.out, "%s is in %s (%.1f s)\n", b.name, b.archive, time.Since(start).Seconds())
}

// run builds with an engine if its registry can be reached, else offline. The
// archive is replaced only when all went well.
func (b build) run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(b.archive), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(b.archive), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "image.tar")
	if err := b.buildTo(ctx, out); err != nil {
		return err
	}
	return os.Rename(out, b.archive)
}

func (b build) buildTo(ctx context.Context, archive string) error {
	if online(ctx) {
		for _, e := range engines() {
			if e.works(ctx) {
				fmt.Fprintln(b.out, "building with", e.command)
				return e.build(ctx, b, archive)
			}
		}
	}
	if err := debian.Install(ctx, b.out, map[string]string{"buildah": "buildah", "busybox": "busybox-static"}); err != nil {
		return fmt.Errorf("no docker, podman or buildah that works with %s, and to build offline: %w", registry, err)
	}
	fmt.Fprintln(b.out, "building offline with buildah: no engine that works, or no registry")
	return b.offline(ctx, archive)
}

// online tells whether a registry can be reached; it wants a login, no more.
func online(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, registry, nil)
	if err != nil {
		return false
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized
}

// engine is a program that builds images.
type engine struct {
	command string
	probe   []string // fails when the engine does not work
	save    []string // writes the image; %[1]s is the archive, %[2]s the image
}

func engines() []engine {
	return []engine{
		{"docker", []string{"info"}, []string{"save", "-o", "%[1]s", "%[2]s"}},
		{"podman", []string{"info"}, []string{"save", "--format=docker-archive", "-o", "%[1]s", "%[2]s"}},
		{"buildah", []string{"images"}, []string{"push", "-q", "%[2]s", "docker-archive:%[1]s:%[2]s"}},
	}
}

// works asks the engine: a docker client alone does not.
func (e engine) works(ctx context.Context) bool {
	return exec.CommandContext(ctx, e.command, e.probe...).Run() == nil
}

func (e engine) build(ctx context.Context, b build, archive string) error {
	if err := show(ctx, e.command, "build", "--platform", "linux/"+b.arch, "--build-arg", "VERSION="+b.version, "-t", b.name, b.context); err != nil {
		return err
	}
	var save []string
	for _, a := range e.save {
		save = append(save, strings.NewReplacer("%[1]s", archive, "%[2]s", b.name).Replace(a))
	}
	return show(ctx, e.command, save...)
}

// show runs a command whose output is for the user.
func show(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// output runs a command and returns what it writes, without white space around.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
