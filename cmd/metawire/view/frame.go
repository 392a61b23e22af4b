package view

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Line is a line of a frame.
type Line struct {
	Text   string
	Title  bool // the heading of the columns
	Change Change
}

// Frame returns the view as lines that fit width columns and height lines: the
// head, two lines of counts, the note, the table. If the table is cut, rows
// that just changed stay and the last line says how many do not show.
func (v *View) Frame(head, note string, now time.Time, width, height int) []Line {
	rows := v.Rows(now)
	lines := []Line{{Text: head}, {Text: v.summary(rows)}, {Text: byKind(rows)}, {Text: note}}
	if len(rows) > 0 {
		table := newTable(rows, width)
		lines = append(lines, table.title())
		shown, hidden := fit(rows, height-len(lines))
		for _, r := range shown {
			lines = append(lines, table.line(r))
		}
		if hidden > 0 {
			lines = append(lines, Line{Text: fmt.Sprintf("… %d more", hidden)})
		}
	}
	lines = lines[:min(len(lines), max(height, 0))]
	for i := range lines {
		lines[i].Text = clip(printable(lines[i].Text), width)
	}
	return lines
}

// summary says what has arrived, and how long the first view took.
func (v *View) summary(rows []Row) string {
	if v.streams == 0 {
		return ""
	}
	if v.events == 0 {
		return "nothing has arrived: is this the name of a node that has pods?"
	}
	s := fmt.Sprintf("%d objects · %d events", alive(rows), v.events)
	if v.full {
		s += fmt.Sprintf(" · first view: %d objects in %s", v.fullSize, round(v.fullTook))
	}
	if v.streams > 1 {
		s += fmt.Sprintf(" · reconnects: %d", v.streams-1)
	}
	return s
}

// byKind counts the objects of each kind, in the order of the rows.
func byKind(rows []Row) string {
	var counts []string
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Kind == rows[0].Kind {
			n++
		}
		counts = append(counts, fmt.Sprintf("%d %s", alive(rows[:n]), rows[0].Kind))
		rows = rows[n:]
	}
	return strings.Join(counts, " · ")
}

// alive counts the rows of objects that are not deleted.
func alive(rows []Row) (n int) {
	for _, r := range rows {
		if r.Change != Deleted {
			n++
		}
	}
	return n
}

// round keeps what a person reads of a duration.
func round(d time.Duration) time.Duration {
	if d >= time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

// fit chooses n lines worth of rows: those that just changed, then from the
// top, in their order. If rows are left out, one line is kept to say so.
func fit(rows []Row, n int) (shown []Row, hidden int) {
	if len(rows) <= n {
		return rows, 0
	}
	n = max(n-1, 0)
	keep := make([]bool, len(rows))
	left := n
	for _, changed := range []bool{true, false} {
		for i, r := range rows {
			if left > 0 && (r.Change != None) == changed {
				keep[i] = true
				left--
			}
		}
	}
	for i, r := range rows {
		if keep[i] {
			shown = append(shown, r)
		}
	}
	return shown, len(rows) - len(shown)
}

// column is a column of the table.
type column struct {
	title string
	cell  func(Row) string
	width int
	least int // it gives way down to this width
	cut   func(s string, width int) string
}

// gap stands between columns, and before the first is the mark of a change.
const gap, markWidth = 2, 2

type table struct{ columns []column }

// newTable lays out columns for all rows, shown or not, so that they do not
// jump. Columns without a cell are left out. Where it gets narrow the widest
// give way; before they become hard to read the services go, then the owners.
func newTable(rows []Row, width int) table {
	const owner, services = "OWNER", "SERVICES"
	const rigid = 1 << 10
	t := table{[]column{
		{title: "KIND", cell: func(r Row) string { return r.Kind }, cut: cutEnd, least: 10},
		{title: "NAMESPACE", cell: func(r Row) string { return r.Namespace }, cut: cutMiddle, least: 11},
		{title: "NAME", cell: func(r Row) string { return r.Name }, cut: cutMiddle, least: 20}, // pods' differ at both ends
		{title: "IP", cell: func(r Row) string { return r.IP }, cut: cutEnd, least: rigid},
		{title: owner, cell: func(r Row) string { return r.Owner }, cut: cutStart, least: 12}, // the name says more than the kind
		{title: services, cell: func(r Row) string { return r.Services }, cut: cutEnd, least: 10},
		{title: "LAST EVENT", cell: func(r Row) string { return r.Last }, cut: cutEnd, least: rigid, width: len("updated 59m")},
	}}
	for i := range t.columns {
		c := &t.columns[i]
		for _, r := range rows {
			c.width = max(c.width, utf8.RuneCountInString(c.cell(r)))
		}
		if c.width > 0 {
			c.width = max(c.width, utf8.RuneCountInString(c.title))
		}
	}
	t.columns = slices.DeleteFunc(t.columns, func(c column) bool { return c.width == 0 })
	for _, last := range []string{services, owner} {
		if narrow, ok := t.shrink(width); ok {
			return narrow
		}
		t.columns = slices.DeleteFunc(t.columns, func(c column) bool { return c.title == last })
	}
	narrow, _ := t.shrink(width)
	return narrow
}

// shrink returns the table with the widest columns made narrower until a line
// fits, and whether that came to be.
func (t table) shrink(width int) (table, bool) {
	t.columns = slices.Clone(t.columns)
	total := markWidth - gap
	for _, c := range t.columns {
		total += c.width + gap
	}
	for ; total > width; total-- {
		var widest *column
		for i := range t.columns {
			if c := &t.columns[i]; c.width > c.least && (widest == nil || c.width > widest.width) {
				widest = c
			}
		}
		if widest == nil {
			return t, false
		}
		widest.width--
	}
	return t, true
}

func (t table) title() Line {
	return Line{Text: t.join("", func(c column) string { return c.title }), Title: true}
}

func (t table) line(r Row) Line {
	mark := [...]string{"", "+", "~", "-"}[r.Change]
	return Line{Text: t.join(mark, func(c column) string { return c.cell(r) }), Change: r.Change}
}

func (t table) join(mark string, text func(column) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", markWidth, mark)
	for i, c := range t.columns {
		if i > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		fmt.Fprintf(&b, "%-*s", c.width, c.cut(text(c), c.width))
	}
	return strings.TrimRight(b.String(), " ")
}

// The cuts bring a text to at most width columns and show what they left out.

func cutStart(s string, width int) string {
	return cut(s, width, 0)
}

func cutMiddle(s string, width int) string {
	return cut(s, width, width/2)
}

func cutEnd(s string, width int) string {
	return cut(s, width, width-1)
}

// cut keeps so many runes of the head, and as many of the tail as then fit.
func cut(s string, width, head int) string {
	r := []rune(s)
	switch {
	case len(r) <= width:
		return s
	case width < 1:
		return ""
	}
	return string(r[:head]) + "…" + string(r[len(r)-(width-1-head):])
}

// clip is a cut that does not show.
func clip(s string, width int) string {
	r := []rune(s)
	return string(r[:min(len(r), max(width, 0))])
}
