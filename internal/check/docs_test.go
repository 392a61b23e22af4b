package check

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestDocs: docs/operate.md has a row for each check, with more to say of it, in
// the order in which they are made, and no others.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	if hint := (&Target{Version: "dev"}).again("metawire", "metawire"); !strings.Contains(string(text), hint) {
		t.Errorf("its example has not the hint of today: %s", hint)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `") && len(cells) == 3 && cells[0] != "| `✓`" && !strings.HasPrefix(cells[1], "`") {
			got = append(got, cells[0]+" | "+cells[1])
			if strings.TrimSpace(strings.Trim(strings.TrimSpace(cells[2]), "|")) == "" {
				t.Errorf("nothing is said of %s", cells[0])
			}
		}
	}
	var want []string
	for _, r := range slices.Concat(Table(), TablePre()) {
		want = append(want, fmt.Sprintf("| `%s` | %s", r.ID, r.Check))
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/operate.md has the rows\n%s\nand the checks are\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestTable: an id names one check, and is written as one.
func TestTable(t *testing.T) {
	for _, table := range [][]Result{Table(), TablePre()} {
		seen := map[string]bool{}
		for _, r := range table {
			if seen[r.ID] || r.ID == "" || strings.ContainsAny(r.ID, " _") {
				t.Errorf("the id %q is not one of a single check", r.ID)
			}
			seen[r.ID] = true
		}
	}
}
