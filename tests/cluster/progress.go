package cluster

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// progressInterval is how often something that takes long says so.
const progressInterval = 15 * time.Second

// progress writes lines that say what happens, with the time since start.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newProgress(w io.Writer) *progress {
	if w == nil {
		w = io.Discard
	}
	return &progress{w: w, start: time.Now()}
}

func (p *progress) step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "%6.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// while writes what say returns every progressInterval until ctx ends.
func (p *progress) while(ctx context.Context, say func() string) {
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.step("%s", say())
		}
	}
}
