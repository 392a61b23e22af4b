package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/metawire/metawire/tests/cluster"
	"github.com/metawire/metawire/tests/cluster/debian"
)

const (
	stateFile = "state.json"
	logFile   = "supervisor.log"
	// patience is how long a supervisor may take to stop its cluster.
	patience = 30 * time.Second
)

// settings are the flags, and what is kept of them beside a running cluster.
type settings struct {
	Dir         string
	Bin         string
	Size        cluster.Size
	Controllers bool
	Port        int
	Name        string
	Subnet      int
	Kubeconfig  string
}

func (s settings) path(file string) string { return filepath.Join(s.Dir, file) }

// kept reads what was kept beside the cluster in s.Dir.
func (s settings) kept() (kept settings, err error) {
	content, err := os.ReadFile(s.path(stateFile))
	if err != nil {
		return kept, err
	}
	return kept, json.Unmarshal(content, &kept)
}

// String names a cluster as a person would.
func (s settings) String() string {
	if s.Size == cluster.ControlPlane && !s.Controllers {
		return string(s.Size) + " without controllers"
	}
	return string(s.Size)
}

// up starts a supervisor that holds the cluster and returns when the cluster
// can be used.
func up(ctx context.Context, out io.Writer, s settings) (err error) {
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return err
	}
	if pid, running := cluster.Running(s.Dir); running {
		return reuse(out, s, pid)
	}
	if s.Size == cluster.Node {
		if err := debian.Install(ctx, out, cluster.Packages()); err != nil {
			return err
		}
	}
	if s.Bin == "" {
		if s.Bin, err = cluster.Binaries(ctx, out, cluster.Set(s.Size)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	if err := os.Remove(s.path(stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := supervise(ctx, out, s); err != nil {
		return err
	}
	kept, err := s.kept()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster of size %s is up: export KUBECONFIG=%s\n", kept, kept.Kubeconfig)
	return nil
}

// reuse accepts a running cluster that is what was asked for.
func reuse(out io.Writer, s settings, pid int) error {
	kept, err := s.kept()
	if err != nil {
		return fmt.Errorf("another process (%d) is starting or using a cluster in %s", pid, s.Dir)
	}
	if kept.Size != s.Size || kept.Controllers != s.Controllers && s.Size == cluster.ControlPlane {
		return fmt.Errorf("a cluster of size %s runs in %s, and %s was asked for: make cluster-down first", kept, s.Dir, s)
	}
	fmt.Fprintf(out, "using the cluster of size %s that runs: export KUBECONFIG=%s\n", kept, kept.Kubeconfig)
	return nil
}

// supervise starts hold in a session of its own, and shows its progress until
// it closes the pipe: when the cluster can be used, or when it failed.
func supervise(ctx context.Context, out io.Writer, s settings) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(s.path(logFile))
	if err != nil {
		return err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(self, "hold", "-dir", s.Dir, "-bin", s.Bin, "-size", string(s.Size), "-name", s.Name,
		fmt.Sprintf("-controllers=%t", s.Controllers), fmt.Sprintf("-port=%d", s.Port), fmt.Sprintf("-subnet=%d", s.Subnet))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return err
	}
	shown := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, r)
		shown <- err
	}()
	select {
	case err := <-shown:
		if _, kept := s.kept(); kept != nil {
			return fmt.Errorf("the cluster did not start (%w); the logs are in %s", cmd.Wait(), s.path("logs"))
		}
		return err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}
}

// hold is the supervisor: it starts the cluster and stops it on SIGTERM.
// Progress goes to file descriptor 3.
func hold(ctx context.Context, s settings) error {
	signal.Ignore(syscall.SIGHUP) // the terminal of up may go
	syscall.CloseOnExec(3)        // else the components keep it open
	out := os.NewFile(3, "progress")
	if out == nil {
		return errors.New("hold is started by up")
	}
	defer out.Close()
	c, err := cluster.Start(ctx, cluster.Options{
		Dir: s.Dir, Bin: s.Bin, Size: s.Size, Controllers: s.Controllers,
		Port: s.Port, Name: s.Name, Subnet: s.Subnet, Log: out,
	})
	if err != nil {
		fmt.Fprintln(out, "error:", err)
		return err
	}
	s.Kubeconfig = c.Kubeconfig()
	kept, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = os.WriteFile(s.path(stateFile), kept, 0o644)
	}
	if err != nil {
		return errors.Join(err, c.Stop())
	}
	if err := out.Close(); err != nil { // up waits for it
		return errors.Join(err, c.Stop())
	}
	select {
	case <-ctx.Done():
	case <-c.Done():
	}
	return c.Stop()
}

// down ends the supervisor and waits until the cluster is gone.
func down(ctx context.Context, out io.Writer, s settings) error {
	kept, err := s.kept()
	if err == nil {
		s.Name = kept.Name
	}
	pid, running := cluster.Running(s.Dir)
	if running {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("end the supervisor, process %d: %w", pid, err)
		}
		if err := gone(ctx, s.Dir); err != nil {
			// Nothing outlives it: see the package cluster.
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return fmt.Errorf("kill the supervisor, process %d: %w", pid, err)
			}
			if err := gone(ctx, s.Dir); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat(s.Dir); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(out, "no cluster is running")
		return nil
	}
	if err := cluster.Clean(s.Dir, s.Name); err != nil {
		return err
	}
	for _, file := range []string{stateFile, logFile} {
		if err := os.Remove(s.path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_ = os.Remove(s.Dir) // unless somebody keeps something in it
	fmt.Fprintln(out, "the cluster is down")
	return nil
}

// gone blocks until no cluster runs in dir.
func gone(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, running := cluster.Running(dir); !running {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the cluster in %s does not stop: %w", dir, ctx.Err())
		}
	}
}

// load imports image archives with containerd's own client, as the package
// does: the cluster is another process's.
func load(ctx context.Context, out io.Writer, s settings, archives []string) error {
	kept, err := s.kept()
	if err != nil || kept.Size != cluster.Node {
		return fmt.Errorf("no cluster of size node runs in %s", s.Dir)
	}
	for _, a := range archives {
		if err := cluster.ImportInto(ctx, kept.Dir, a); err != nil {
			return err
		}
		fmt.Fprintln(out, "imported", a)
	}
	return nil
}
