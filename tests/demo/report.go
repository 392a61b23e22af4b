package main

import (
	"fmt"
	"slices"
	"time"
)

// group is what arrived of one sort because of one change.
type group struct {
	what   string
	after  []time.Duration // since the change began
	behind []time.Duration // since a plain watch had it; none when it has no such
}

// report returns a table: for each change, what arrived, how long after it
// began, and how long after the API server had told a plain watch of the same.
func (r *recorder) report() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := []string{fmt.Sprintf("  %-34s  %16s  %22s", "", "after the command", "behind a plain watch")}
	for _, c := range r.changes {
		lines = append(lines, "$ "+c.command)
		for _, g := range r.groups(c) {
			lines = append(lines, fmt.Sprintf("  %-34s  %16s  %22s", fmt.Sprintf("%2d × %s", len(g.after), g.what), span(g.after), typical(g.behind)))
		}
	}
	return append(lines,
		"  after the command: includes the work of Kubernetes; behind a plain watch: what the",
		"  collector adds, compared with a client that watches the API server by itself (median)")
}

// groups sorts what arrived, in the order of the first of each sort.
func (r *recorder) groups(c *recorded) []group {
	var groups []group
	for _, a := range c.arrivals {
		i := slices.IndexFunc(groups, func(g group) bool { return g.what == a.what })
		if i < 0 {
			i, groups = len(groups), append(groups, group{what: a.what})
		}
		groups[i].after = append(groups[i].after, a.at.Sub(c.began))
		if told, ok := r.announced[a.version]; ok {
			groups[i].behind = append(groups[i].behind, a.at.Sub(told))
			delete(r.announced, a.version) // the next event of this version has another cause
		}
	}
	return groups
}

// typical writes the median, and the greatest duration if there are several.
func typical(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	slices.Sort(all)
	text := milliseconds(all[len(all)/2]) + " ms"
	if len(all) > 1 {
		text += " (max " + milliseconds(all[len(all)-1]) + ")"
	}
	return text
}

// span writes the least and the greatest duration.
func span(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	least, most := milliseconds(slices.Min(all)), milliseconds(slices.Max(all))
	if least == most {
		return least + " ms"
	}
	return least + " … " + most + " ms"
}

// milliseconds writes a duration with two digits that count.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 && ms > -10 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}
