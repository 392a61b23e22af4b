package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

// screen is where the demo tells what happens. Its methods may be called from
// any goroutine.
type screen struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	color    bool
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok {
		s.terminal = term.IsTerminal(int(f.Fd()))
		s.color = s.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

// pause is how long a person needs to look; a log needs no time.
func (s *screen) pause() time.Duration {
	if s.terminal {
		return 3 * time.Second
	}
	return time.Second
}

func (s *screen) paint(style, text string) string {
	if !s.color {
		return text
	}
	return style + text + plain
}

// title begins a part.
func (s *screen) title(text string) { s.line("\n" + s.paint(bold, text)) }

func (s *screen) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.w, text)
}

// step says what happens, does it, and says how long it took.
func (s *screen) step(what string, do func() error) error {
	s.line(s.paint(bold, "• ") + what)
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	s.done("", time.Since(began))
	return nil
}

// done says that something is ready.
func (s *screen) done(what string, took time.Duration) {
	s.line(fmt.Sprintf("  %s %s%s", s.paint(green, "✓"), what, s.paint(dim, fmt.Sprintf("%.1f s", took.Seconds()))))
}

// command runs a program whose lines are shown, dimmed, below the step.
func (s *screen) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	out := &lines{screen: s}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	err := cmd.Run()
	out.flush()
	if err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return nil
}

// lines shows what is written to it, line by line.
type lines struct {
	screen *screen
	rest   []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.show(line)
		l.rest = rest
	}
}

func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.show(l.rest)
	}
}

func (l *lines) show(line []byte) {
	l.screen.line(l.screen.paint(dim, "    "+string(line)))
}

// watchCommand runs metawire watch on this terminal until ctx ends, which is no
// error.
func watchCommand(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, filepath.Join("bin", "metawire"), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("metawire watch: %w", err)
	}
	return nil
}
