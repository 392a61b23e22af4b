package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// platform is what a program runs on.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "-" + p.arch }

// platforms of the command line; the image has those of Linux.
func platforms() []platform {
	return []platform{{"darwin", "amd64"}, {"darwin", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"}}
}

// commandLine builds the command line for each platform, and packs it with the
// license.
func commandLine(ctx context.Context, r *release) error {
	for _, p := range platforms() {
		if err := r.program(ctx, "metawire", p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// program builds a program of cmd and packs it.
func (r *release) program(ctx context.Context, name string, p platform) error {
	binary := r.built(name, p)
	// Without buildvcs: it tells whether a tag is there, which comes later.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X github.com/metawire/metawire/internal/version.Version="+r.version,
		"-o", binary, "github.com/metawire/metawire/cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=")
	if _, err := outputOf(cmd); err != nil {
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	license, err := readLicense(ctx)
	if err != nil {
		return err
	}
	return writeTar(r.file(fmt.Sprintf("%s-%s-%s.tar.gz", name, r.version, p)), r.epoch, []entry{
		{name, 0o755, program},
		{"LICENSE", 0o644, license},
	})
}

// built is where a program is before it is packed.
func (r *release) built(name string, p platform) string {
	return filepath.Join(r.work, p.String(), name)
}

func readLicense(ctx context.Context) ([]byte, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(root, "LICENSE"))
}

// moduleRoot is the project's directory.
func moduleRoot(ctx context.Context) (string, error) {
	return output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
}
