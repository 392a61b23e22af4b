package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// process is a child process. It does not outlive this one.
type process struct {
	name string
	pid  int
	done chan struct{} // closed when it ended
	err  error         // why, after done
}

// startProcess starts a command; its standard error, and its standard output
// if out is nil, go to log.
func startProcess(log, out io.Writer, binary string, args ...string) (*process, error) {
	cmd := exec.Command(binary, args...)
	cmd.Stderr, cmd.Stdout = log, out
	if out == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = dieWithParent()
	p := &process{name: binary + " " + strings.Join(args, " "), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// A child that dies with its parent dies with the thread that
		// started it: that thread belongs to it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			if p.err = cmd.Wait(); p.err == nil {
				p.err = errors.New("exit status 0")
			}
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// startSelf executes this program again with a hidden command and blocks until
// it has written one line to its standard output, which is returned.
func startSelf(ctx context.Context, log io.Writer, args ...string) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	r, w := io.Pipe()
	p, err := startProcess(log, w, self, args...)
	if err != nil {
		return nil, "", err
	}
	line := make(chan string, 1)
	go func() {
		scanner := bufio.NewScanner(r)
		if scanner.Scan() {
			line <- scanner.Text()
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	select {
	case l := <-line:
		return p, l, nil
	case <-p.done:
		return nil, "", fmt.Errorf("%s ended before it was ready: %w", p.name, p.err)
	case <-ctx.Done():
		p.kill()
		return nil, "", fmt.Errorf("start %s: %w", p.name, context.Cause(ctx))
	}
}

// explain adds to an error that the process ended, which explains it.
func (p *process) explain(err error) error {
	select {
	case <-p.done:
		if err != nil {
			return fmt.Errorf("%w; %s ended: %w", err, p.name, p.err)
		}
	default:
	}
	return err
}

// kill ends the process at once and waits for its end.
func (p *process) kill() {
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
}
