package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// goal is a figure to reach: the measured value is at most the limit.
type goal struct {
	number string
	limit  float64
	unit   string // of the limit and of what is compared with it
}

// Names of goals.
const (
	goalSyncWall   = "first sync, wall"
	goalSyncCPU    = "first sync, CPU"
	goalStreamWall = "first sync, wall, connections stand"
	goalStreamCPU  = "first sync, CPU, connections stand"
	goalMedian     = "change latency p50"
	goalTail       = "change latency p99"
	goalChangeCPU  = "CPU a change"
	goalHeap       = "live heap a pod"
	goalResident   = "resident, steady"
	goalPeak       = "resident, peak of the first list"
	goalOthers     = "others' p99 to the watch's, one stuck"
	goalHeld       = "held for the stuck one"
	goalThawed     = "wrong entries once it reads again"
	goalGrowthCPU  = "CPU a change, most / least"
	goalGrowthSize = "resident a subscriber, last step / first"
	goalInventory  = "inventory, resident above idle"
	goalAdmission  = "admission p99, in process"
	goalRotation   = "certificates and authorities changed"
)

// goals is the one table of what is to be reached.
func goals() map[string]goal {
	return map[string]goal{
		goalSyncWall:   {"P1", 1.5, "x"},
		goalSyncCPU:    {"P1", 1.5, "x"},
		goalStreamWall: {"P1", 1.5, "x"},
		goalStreamCPU:  {"P1", 1.5, "x"},
		goalMedian:     {"P2", 1, "ms more"},
		goalTail:       {"P2", 10, "ms more"},
		goalChangeCPU:  {"P3", 1.5, "x"},
		goalHeap:       {"P4", 2, "KiB"},
		goalResident:   {"P4", 200, "MiB"},
		goalPeak:       {"P4", 1.5, "x steady"},
		goalOthers:     {"P5", 1.05, "x"},
		goalHeld:       {"P5", 64, "KiB"},
		goalThawed:     {"P5", 0, "entries"},
		goalGrowthCPU:  {"P8", 1.2, "x"},
		goalGrowthSize: {"P8", 1.2, "x"},
		goalInventory:  {"I1", 64, "MiB"},
		goalAdmission:  {"W1", 5, "ms"},
		goalRotation:   {"R3", 0, "failures"},
	}
}

// report is a table with a row a figure.
type report struct {
	small bool // sizes too small to judge
	rows  [][]string
}

// judge adds a figure that has a goal. measured is in the goal's unit; value
// and beside are what people read: what was measured, and the comparison of
// the same run.
func (r *report) judge(name, value, beside string, measured float64) {
	g := goals()[name]
	verdict := "ok"
	if measured > g.limit {
		verdict = "not"
	}
	if r.small {
		verdict = "small"
	}
	r.rows = append(r.rows, []string{
		g.number, name, value, beside, fmt.Sprintf("%.2f %s", measured, g.unit), fmt.Sprintf("<= %v", g.limit), verdict,
	})
}

// note adds a figure without a goal.
func (r *report) note(name, value, beside string) {
	r.rows = append(r.rows, []string{"", name, value, beside, "", "", ""})
}

func (r *report) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	header := []string{"goal", "figure", "collector", "comparison in this run", "compared", "limit", ""}
	for _, row := range append([][]string{header}, r.rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", milliseconds(d)) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", mebibytes(bytes)) }

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func ratio[T ~int64 | ~int | ~float64](a, b T) float64 { return float64(a) / float64(b) }
