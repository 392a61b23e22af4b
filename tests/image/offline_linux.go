package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

// Offline, the Dockerfile is built as it is by buildah. The Go image that it
// builds from is replaced by a stand-in of the same name: busybox and nothing
// else. The toolchain, the modules and the build cache that this machine has are
// mounted into it, and nothing is downloaded.

// standIn is the Dockerfile of that image.
const standIn = `FROM scratch
COPY . /
ENV PATH=/go/bin:/usr/local/go/bin:/bin GOPATH=/go GOTOOLCHAIN=local GOPROXY=off GOCACHE=/gocache HOME=/root
WORKDIR /go
`

// buildah runs buildah with storage of its own.
type buildah struct{ dir string }

func (b build) offline(ctx context.Context, archive string) (err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	bh := buildah{filepath.Join(cache, "metawire", fmt.Sprintf("buildah-%.4x", sha256.Sum256([]byte(standIn))))}
	if err := os.MkdirAll(bh.dir, 0o755); err != nil {
		return err
	}
	// Builds share the storage: what one that failed clears away would be
	// another's container.
	lock, err := os.OpenFile(filepath.Join(bh.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	base, err := goImage(filepath.Join(b.context, "Dockerfile"))
	if err != nil {
		return err
	}
	if err := bh.standIn(ctx, base); err != nil {
		return fmt.Errorf("stand-in for %s: %w", base, err)
	}
	// The stand-in sees the modules but no proxy.
	if err := show(ctx, "go", "mod", "download"); err != nil {
		return err
	}
	env, err := output(ctx, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE")
	if err != nil {
		return err
	}
	paths := strings.Split(env, "\n")
	defer func() {
		if err != nil { // a build that failed leaves its container
			err = errors.Join(err, bh.run(context.WithoutCancel(ctx), "rm", "--all"))
		}
	}()
	if err := bh.run(ctx, "bud", "--isolation=chroot", "--pull-never",
		"--platform=linux/"+b.arch, "--build-arg=VERSION="+b.version, "--build-arg=BUILDPLATFORM=linux/"+runtime.GOARCH,
		"--volume="+paths[0]+":/usr/local/go:ro", "--volume="+paths[1]+":/go/pkg/mod:ro", "--volume="+paths[2]+":/gocache",
		"--tag="+b.name, b.context); err != nil {
		return err
	}
	if err := bh.run(ctx, "push", "--quiet", b.name, "docker-archive:"+archive+":"+b.name); err != nil {
		return err
	}
	return bh.run(ctx, "rmi", "--prune") // what the name meant before
}

// goImage returns the Go image that a Dockerfile builds from.
func goImage(dockerfile string) (string, error) {
	content, err := os.ReadFile(dockerfile)
	if err != nil {
		return "", err
	}
	from := regexp.MustCompile(`(?m)^FROM (?:--\S+ )*(golang:\S+)`).FindSubmatch(content)
	if from == nil {
		return "", fmt.Errorf("%s builds from no golang image", dockerfile)
	}
	return string(from[1]), nil
}

// standIn makes the stand-in image if it is not there.
func (bh buildah) standIn(ctx context.Context, image string) error {
	if bh.command(ctx, "inspect", "--type=image", "docker.io/library/"+image).Run() == nil {
		return nil
	}
	root, err := os.MkdirTemp(bh.dir, "stand-in-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for _, d := range []string{"bin", "tmp", "go/pkg/mod", "root", "usr/local/go", "gocache", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), busybox, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("busybox", filepath.Join(root, "bin", "sh")); err != nil {
		return err
	}
	dockerfile := filepath.Join(bh.dir, "Dockerfile.stand-in")
	if err := os.WriteFile(dockerfile, []byte(standIn), 0o644); err != nil {
		return err
	}
	return bh.run(ctx, "bud", "--isolation=chroot", "--quiet", "--file="+dockerfile, "--tag=docker.io/library/"+image, root)
}

// command has mounts of its own, so that none can stay.
func (bh buildah) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "buildah", append([]string{
		"--root=" + filepath.Join(bh.dir, "root"), "--runroot=" + filepath.Join(bh.dir, "run"), "--storage-driver=overlay",
	}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+bh.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

func (bh buildah) run(ctx context.Context, args ...string) error {
	cmd := bh.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("buildah %s: %w: %s", args[0], err, out.Bytes())
	}
	return nil
}
