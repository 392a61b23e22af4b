package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// logTail is how many lines of a component's log an error shows.
const logTail = 15

// starter starts processes that end with this one, however it ends.
//
// The kernel sends a child's parent-death signal when the thread that made it
// ends, not the process, so all are made by one thread that lives until close.
type starter struct{ work chan func() }

func newStarter() starter {
	s := starter{work: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s starter) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = dieWithParent(cmd.SysProcAttr)
	result := make(chan error)
	s.work <- func() { result <- cmd.Start() }
	return <-result
}

// close must come after the end of every process: it ends those that live.
func (s starter) close() { close(s.work) }

// process is a running component.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed at its end; err is set then
	err  error
}

// run starts c; its output is appended to logs/<name>.log.
func (s starter) run(p plan, c component) (*process, error) {
	path := p.path("logs", c.name+".log")
	log, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(p.Bin, c.name), c.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, log, log
	if err := s.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	run := &process{cmd: cmd, log: path, done: make(chan struct{})}
	go func() {
		run.err = ended(c.name, cmd.Wait(), path)
		close(run.done)
	}()
	return run, nil
}

// ended describes the end of a process, with the end of its log.
func ended(name string, err error, log string) error {
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	return fmt.Errorf("%s ended: %s; %s ends with:\n%s", name, how, log, tail(log))
}

// tail returns the last lines of a file.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-logTail):], "\n")
}
