package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/metawire/metawire/cmd/metawire/view"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/internal/subscriber"
)

// The table is drawn at most every drawEvery, and every ageEvery even if
// nothing happened: ages go on.
const (
	drawEvery = 100 * time.Millisecond
	ageEvery  = 500 * time.Millisecond
)

// Control sequences (ECMA-48 and what xterm added), as far as needed.
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	wrapOff    = "\x1b[?7l"
	wrapOn     = "\x1b[?7h"
	clearAll   = "\x1b[H\x1b[2J"
	clearBelow = "\x1b[J"
	clearRight = "\x1b[K"
	linesUp    = "\x1b[%dA"
	plain      = "\x1b[0m"
	bold       = "\x1b[1m"
	green      = "\x1b[32m"
	red        = "\x1b[31m"
	yellow     = "\x1b[33m"
	redStruck  = "\x1b[31;9m"
)

// terminal is where the table is drawn.
type terminal struct {
	io.Writer
	size  func() (width, height int, err error)
	color bool
}

// live draws a view in place, below what is on the terminal already.
type live struct {
	terminal
	title string // what is watched

	mu    sync.Mutex
	view  *view.View
	took  string // what the connection took
	note  string // why there is none
	dirty bool

	// of the drawing goroutine
	drawn         []view.Line
	width, height int
	drawnAt       time.Time
}

func newLive(v *view.View, o subscriber.Options, t terminal) *live {
	security := "plaintext"
	if o.Target.Secure() {
		security = "TLS"
	}
	return &live{
		terminal: t,
		title:    fmt.Sprintf("node %s · %s (%s)", o.Node, o.Target.Addr, security),
		view:     v,
		note:     "connecting",
		dirty:    true,
	}
}

// run subscribes and draws until the subscription ends; the last state stays on
// the terminal.
func (l *live) run(ctx context.Context, o subscriber.Options) error {
	if _, err := io.WriteString(l, hideCursor+wrapOff); err != nil {
		return fmt.Errorf("write to the terminal: %w", err)
	}
	drawing, stop := context.WithCancel(ctx)
	var draws sync.WaitGroup
	draws.Go(func() {
		tick := time.NewTicker(drawEvery)
		defer tick.Stop()
		for {
			l.draw(time.Now())
			select {
			case <-drawing.Done():
				return
			case <-tick.C:
			}
		}
	})
	err := subscriber.Run(ctx, o, l)
	stop()
	draws.Wait()
	l.tell("")
	l.draw(time.Now())
	fmt.Fprint(l, "\r"+clearBelow+wrapOn+showCursor) // also of the ^C that was typed
	return err
}

// Connected implements subscriber.Observer.
func (l *live) Connected(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took, l.note, l.dirty = " · connected in "+took.Round(100*time.Microsecond).String(), "", true
	l.view.Subscribed(time.Now())
}

// Retrying implements subscriber.Observer.
func (l *live) Retrying(reason error, pause time.Duration) {
	l.tell(fmt.Sprintf("%v; again in %s", reason, pause))
}

// Event implements subscriber.Observer.
func (l *live) Event(e *metadata.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = true
	_, err := l.view.Apply(e, time.Now())
	return err
}

func (l *live) tell(note string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note, l.dirty = note, true
}

// draw brings the terminal up to date if there is reason to. A terminal that
// cannot be written to is not worth ending for: the next draw may succeed.
func (l *live) draw(now time.Time) {
	width, height, err := l.size()
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	resized := width != l.width || height != l.height
	// The cursor stays below the table, and right of it: clearing to the right
	// from the last column would clear that.
	lines, ok := l.frame(now, width-1, height-1, resized)
	if !ok || !resized && slices.Equal(lines, l.drawn) {
		return
	}
	var b bytes.Buffer
	switch {
	case resized && l.width > 0: // the terminal may have moved what was drawn
		b.WriteString(clearAll)
	case len(l.drawn) > 0:
		fmt.Fprintf(&b, "\r"+linesUp, len(l.drawn))
	}
	for _, line := range lines {
		b.WriteString(l.paint(line) + clearRight + "\n")
	}
	b.WriteString(clearBelow)
	if _, err := b.WriteTo(l); err == nil {
		l.drawn, l.width, l.height, l.drawnAt = lines, width, height, now
	}
}

// frame returns what to draw, if anything may have changed.
func (l *live) frame(now time.Time, width, height int, force bool) ([]view.Line, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !force && !l.dirty && now.Sub(l.drawnAt) < ageEvery {
		return nil, false
	}
	l.dirty = false
	return l.view.Frame(l.title+l.took, l.note, now, width, height), true
}

func (l *live) paint(line view.Line) string {
	if !l.color {
		return line.Text
	}
	switch {
	case line.Title:
		return bold + line.Text + plain
	case line.Change == view.Created:
		return green + line.Text + plain
	case line.Change == view.Updated:
		return yellow + line.Text + plain
	case line.Change == view.Deleted:
		return redStruck + line.Text + plain
	}
	return line.Text
}
