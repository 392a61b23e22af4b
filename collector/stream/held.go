package stream

import (
	"context"
	"net/netip"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// How many streams may be open without being served: of those that name no
// node, and of those of which it is not known yet whether they may. Anybody can
// open one. Of each address there may be a quarter, so that one caller does not
// keep out all others.
const (
	mostUnnamed   = 1024
	mostUndecided = 1024
	partOfAddress = 4
)

// held counts streams that are open without being served.
type held struct {
	most int

	mu   sync.Mutex
	all  int
	from map[netip.Addr]int
}

func newHeld(most int) *held { return &held{most: most, from: map[netip.Addr]int{}} }

// enter returns what is called when the stream is served or has ended; the
// error is a status that the plugin comes back from after a second.
func (h *held) enter(ctx context.Context) (leave func(), err error) {
	a := addressOf(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= h.most || h.from[a] >= max(1, h.most/partOfAddress) {
		return nil, status.Error(codes.ResourceExhausted, "too many streams are open that are not served: try again")
	}
	h.all++
	h.from[a]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all--
		if h.from[a]--; h.from[a] == 0 {
			delete(h.from, a)
		}
	}, nil
}

// now returns how many there are.
func (h *held) now() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all
}

// addressOf is the peer's, the zero value if it has none.
func addressOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}
	}
	ap, _ := netip.ParseAddrPort(p.Addr.String())
	return ap.Addr().Unmap().WithZone("")
}
