package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
)

// Row is an object as a table shows it.
type Row struct {
	Identity
	IP       string // pods only
	Owner    string // pods only: Kind/name of the controller, or of its own
	Services string // pods only: names, separated by commas
	Last     string // what happened last and how long ago: "updated 3s"
	Change   Change // what happened in the last two seconds
	uid      string
}

// Rows returns all objects: pods first, then what they refer to, by kind,
// namespace and name.
func (v *View) Rows(now time.Time) []Row {
	v.Advance(now)
	rows := make([]Row, 0, len(v.objects))
	for _, o := range v.objects {
		r := Row{Identity: o.Identity, IP: o.ip, Last: o.last() + " " + age(now.Sub(o.at)), uid: o.uid}
		if o.marked && now.Sub(o.at) < markFor {
			r.Change = o.change
		}
		if o.Kind == string(relation.Pod) {
			refs := o.event.GetRefs().GetResources()
			r.Owner, r.Services = v.owner(refs), v.services(refs)
		}
		rows = append(rows, r)
	}
	order := kindOrder()
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(order[a.Kind]-order[b.Kind], strings.Compare(a.Kind, b.Kind),
			strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.uid, b.uid))
	})
	return rows
}

// last says what the last event was. Objects of the first view were there
// before: they were seen, not created.
func (o *object) last() string {
	if o.change == Created && !o.marked {
		return "seen"
	}
	return o.change.String()
}

// owner names the highest controller that a pod refers to: a ReplicaSet only
// if that has no controller of its own.
func (v *View) owner(refs map[string]*metadata.ListOfStrings) string {
	var owner string
	for kind, list := range refs {
		if kind == string(relation.Namespace) || kind == string(relation.Service) || len(list.GetList()) == 0 {
			continue
		}
		if kind == string(relation.ReplicaSet) && owner != "" {
			continue
		}
		if kind == "Node" { // a static pod's, which can only be the node watched
			owner = kind + "/" + v.node
			continue
		}
		owner = printable(kind) + "/" + v.name(list.GetList()[0])
	}
	return owner
}

func (v *View) services(refs map[string]*metadata.ListOfStrings) string {
	uids := refs[string(relation.Service)].GetList()
	names := make([]string, 0, len(uids))
	for _, uid := range uids {
		names = append(names, v.name(uid))
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

// name is the object's name, or the beginning of its UID while it is unknown.
func (v *View) name(uid string) string {
	if o := v.objects[uid]; o != nil {
		return o.Name
	}
	first, _, _ := strings.Cut(printable(uid), "-")
	return first
}

// String returns the change as the past tense that the table shows.
func (c Change) String() string {
	return [...]string{"", "created", "updated", "deleted"}[c]
}

// kindOrder ranks kinds for people: pods first, since a table may be cut at its
// end. Unknown kinds come before them all, to be seen.
func kindOrder() map[string]int {
	kinds := relation.Kinds()
	order := make(map[string]int, len(kinds))
	for i, k := range kinds {
		order[string(k)] = i + 2
	}
	order[string(relation.Pod)] = 1
	return order
}

// age is a duration in one unit, cut.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// printable keeps what a server sends from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
