package inventory

import (
	"fmt"
	"strings"
	"time"
)

// Summary is a report in a sentence: for Events, and for people.
func Summary(r *Report) string {
	missed := map[Outcome][]string{}
	listed := 0
	for i := range r.Types {
		t := &r.Types[i]
		listed += t.Listed
		if t.Outcome != OK {
			missed[t.Outcome] = append(missed[t.Outcome], t.Name)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d objects of %d types", r.Result, listed, len(r.Types))
	if r.Sent.Pages > 0 {
		fmt.Fprintf(&b, ", %d sent in %d pages (%s)", r.Sent.Objects, r.Sent.Pages, size(r.Sent.Wire))
	} else { // nothing was, or it is a dry run
		fmt.Fprintf(&b, ", %s of JSON", size(r.Sent.Bytes))
	}
	if r.Sent.Spooled > 0 {
		fmt.Fprintf(&b, ", %d pages wait on disk", r.Sent.Spooled)
	}
	fmt.Fprintf(&b, ", within %s", r.Ended.Sub(r.Started).Round(10*time.Millisecond))
	for _, o := range []Outcome{Failed, Forbidden, Truncated, Absent} {
		if names := missed[o]; len(names) > 0 {
			more := ""
			if len(names) > 5 {
				names, more = names[:5], fmt.Sprintf(" and %d more", len(names)-5)
			}
			fmt.Fprintf(&b, "; %s: %s%s", o, strings.Join(names, ", "), more)
		}
	}
	if r.Error != "" {
		fmt.Fprintf(&b, "; %s", r.Error)
	}
	const most = 1024 // bytes of an Event's message
	if b.Len() > most {
		return strings.ToValidUTF8(b.String()[:most-3], "") + "..."
	}
	return b.String()
}

func size(bytes int64) string {
	for _, u := range []struct {
		unit string
		is   int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if bytes >= u.is {
			return fmt.Sprintf("%.1f %s", float64(bytes)/float64(u.is), u.unit)
		}
	}
	return fmt.Sprintf("%d B", bytes)
}
