package main

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metawire/metawire/cmd/metawire/view"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/internal/subscriber"
)

// screen understands the control sequences that live draws with, and no other.
type screen struct {
	*output
	mu     sync.Mutex
	lines  []string
	row    int
	cursor bool
	wrap   bool
	bad    []string
	w, h   int
}

var sequence = regexp.MustCompile(`^\x1b\[(\??[\d;]*)([A-Za-z])`)

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	for rest := string(p); rest != ""; {
		if m := sequence.FindStringSubmatch(rest); m != nil {
			s.control(m[1], m[2])
			rest = rest[len(m[0]):]
			continue
		}
		end := strings.IndexAny(rest, "\x1b\r\n")
		switch {
		case end < 0:
			end = len(rest)
		case end == 0 && rest[0] == '\n':
			s.row++
			end = 1
		case end == 0: // the cursor is at the left already after each line
			end = 1
		}
		if text := strings.Trim(rest[:end], "\r\n"); text != "" {
			s.line(text)
		}
		rest = rest[end:]
	}
	s.mu.Unlock()
	return s.output.Write(p)
}

func (s *screen) line(text string) {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	s.lines[s.row] = text
}

func (s *screen) control(argument, name string) {
	switch argument + name {
	case "?25l", "?25h":
		s.cursor = name == "h"
	case "?7l", "?7h":
		s.wrap = name == "h"
	case "J":
		s.lines = s.lines[:min(len(s.lines), s.row)]
	case "H":
		s.row = 0
	case "2J":
		s.lines = nil
	case "K", "0m", "1m", "32m", "33m", "31;9m":
	default:
		n, err := strconv.Atoi(argument)
		if name != "A" || err != nil || n > s.row {
			s.bad = append(s.bad, argument+name)
			return
		}
		s.row -= n
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func (s *screen) size() (int, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w, s.h, nil
}

func (s *screen) resize(w, h int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w, s.h = w, h
}

func (s *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	s.waitUntil(t, strconv.Quote(text), func(string) bool { return strings.Contains(s.text(), text) })
}

func newScreen() *screen {
	return &screen{output: newOutput(), cursor: true, wrap: true, w: 100, h: 20}
}

// watchLive draws the node worker-1 until the function that it returns is called.
func watchLive(t *testing.T, addr string, s *screen, color bool) (stop func() error) {
	t.Helper()
	o := subscriber.Options{
		Target: subscriber.Target{Addr: addr}, Node: "worker-1",
		Kinds: contractKinds(), Retry: time.Millisecond, ReconnectPatience: time.Millisecond,
	}
	l := newLive(view.New(o.Node), o, terminal{Writer: s, size: s.size, color: color})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.run(ctx, o) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() }) // when the test failed before
	return stop
}

func TestLiveTable(t *testing.T) {
	hub, addr := collect(t)
	fill(hub)
	s := newScreen()
	stop := watchLive(t, addr, s, true)
	s.waitFor(t, "first view: 3 objects in ")
	s.waitFor(t, "DaemonSet/agent")
	if s.cursor || s.wrap {
		t.Error("the cursor shows, or lines wrap, while the table is drawn")
	}
	hub.Apply(pod("p2", "web-1", "10.0.0.2"))
	s.waitFor(t, "+ Pod")
	hub.Apply(pod("p2", "web-1", "10.0.0.3"))
	s.waitFor(t, "~ Pod")
	s.waitFor(t, "10.0.0.3")
	hub.Delete(relation.Pod, "p2")
	s.waitFor(t, "- Pod")
	s.waitUntil(t, "end of the deleted row", func(string) bool { return !strings.Contains(s.text(), "web-1") })
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v, want no error", err)
	}
	for _, want := range []string{"\x1b[32m+ Pod", "\x1b[33m~ Pod", "\x1b[31;9m- Pod", "\x1b[1m  KIND"} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("never drawn: %q", want)
		}
	}
	if !s.cursor || !s.wrap || len(s.bad) > 0 {
		t.Errorf("left behind: cursor %v, wrap %v; not understood: %q", s.cursor, s.wrap, s.bad)
	}
	if !strings.Contains(s.text(), "agent-x1") {
		t.Errorf("the last state did not stay:\n%s", s.text())
	}
}

func TestLiveTableWithoutColor(t *testing.T) {
	hub, addr := collect(t)
	fill(hub)
	s := newScreen()
	stop := watchLive(t, addr, s, false)
	s.waitFor(t, "first view")
	hub.Delete(relation.Pod, "p1")
	s.waitFor(t, "- Pod")
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v, want no error", err)
	}
	if i := slices.IndexFunc([]string{green, yellow, redStruck, bold}, func(c string) bool { return strings.Contains(s.String(), c) }); i >= 0 {
		t.Error("colors without being asked for")
	}
}

func TestLiveTableFollowsTheSizeOfTheTerminal(t *testing.T) {
	hub, addr := collect(t)
	fill(hub)
	s := newScreen()
	stop := watchLive(t, addr, s, true)
	s.waitFor(t, "agent-x1")
	s.resize(100, 8)
	s.waitFor(t, "… 2 more")
	if n := strings.Count(s.text(), "\n") + 1; n > 7 {
		t.Errorf("%d lines on a terminal of 8:\n%s", n, s.text())
	}
	s.resize(100, 20)
	s.waitUntil(t, "whole table", func(string) bool {
		return !strings.Contains(s.text(), "more") && strings.Contains(s.text(), "agent-x1")
	})
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v, want no error", err)
	}
}

func TestLiveTableEndsWithTheReason(t *testing.T) {
	s := newScreen()
	if err := watchLive(t, "127.0.0.1", s, true)(); err == nil {
		t.Error("no error from an address without a port")
	}
	if !s.cursor || !s.wrap {
		t.Error("the terminal is left changed")
	}
	broken := errors.New("broken")
	l := newLive(view.New("n"), subscriber.Options{}, terminal{Writer: failing{broken}, size: s.size})
	if err := l.run(t.Context(), subscriber.Options{}); !errors.Is(err, broken) {
		t.Errorf("run() = %v, want the terminal's error", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
