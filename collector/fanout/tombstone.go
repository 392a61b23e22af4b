package fanout

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/metawire/metawire/collector/relation"
)

// tombstone remembers an object that stopped concerning a node. All Deletes are
// told from tombstones: a subscriber that connects again may hold what left
// while it was away, or what another replica told it, and forgets it only when
// told so. A Delete of what it never held is harmless to it.
type tombstone struct {
	seq  uint64
	at   int64 // Unix time in nanoseconds
	kind relation.Kind
	uid  string
}

// tombstones are a node's, oldest first. Subscribers read them each from a
// place of its own, so a slow one costs nothing here.
type tombstones struct {
	queue   []tombstone // those whose seq is not byUID's are void
	byUID   map[string]uint64
	last    uint64 // the newest seq
	evicted uint64 // the newest seq that was dropped while it was valid
}

func (t *tombstones) len() int { return len(t.byUID) }

func (t *tombstones) add(kind relation.Kind, uid string, at time.Time) {
	if t.byUID == nil {
		t.byUID = map[string]uint64{}
	}
	t.last++
	t.byUID[uid] = t.last
	t.queue = append(t.queue, tombstone{t.last, at.UnixNano(), kind, uid})
	t.compact()
}

// remove voids the tombstone of an object that is back.
func (t *tombstones) remove(uid string) {
	delete(t.byUID, uid)
	t.compact()
}

func (t *tombstones) valid(s tombstone) bool { return t.byUID[s.uid] == s.seq }

// after returns the tombstones, void ones too, that are newer than seq.
func (t *tombstones) after(seq uint64) []tombstone {
	i, _ := slices.BinarySearchFunc(t.queue, seq+1, func(s tombstone, seq uint64) int { return cmp.Compare(s.seq, seq) })
	return t.queue[i:]
}

// prune drops what is older than the time, and the oldest beyond n. It returns
// how many of the latter there were.
func (t *tombstones) prune(before time.Time, n int) (evicted int) {
	drop := 0
	for _, s := range t.queue {
		expired := s.at < before.UnixNano()
		if !expired && len(t.byUID) <= n {
			break
		}
		if t.valid(s) {
			delete(t.byUID, s.uid)
			t.evicted = s.seq
			if !expired {
				evicted++
			}
		}
		drop++
	}
	t.queue = t.queue[drop:]
	t.compact()
	return evicted
}

// compact drops what is void when that is most of the queue, and gives memory
// back: neither slices nor maps shrink by themselves.
func (t *tombstones) compact() {
	if len(t.queue) > 2*len(t.byUID)+64 {
		t.queue = slices.DeleteFunc(t.queue, func(s tombstone) bool { return !t.valid(s) })
	}
	if cap(t.queue) > 4*len(t.queue)+64 {
		t.queue, t.byUID = slices.Clone(t.queue), maps.Clone(t.byUID)
	}
}
