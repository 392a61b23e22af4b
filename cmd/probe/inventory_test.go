package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInventory(t *testing.T) {
	const ended = `"ended":"2026-01-02T03:04:05Z"`
	for name, c := range map[string]struct{ report, says, fails string }{
		"none yet":     {"", "PASS: no run of the inventory has ended yet; to make one now: metawire inventory trigger\n", ""},
		"complete":     {`{"result":"complete",` + ended + `,"types":[{"name":"pods","outcome":"ok","listed":3}],"more":1}`, "complete, 3 objects of 1 types", ""},
		"partial":      {`{"result":"partial",` + ended + `,"types":[{"name":"pods","outcome":"forbidden","error":"no"}]}`, "\npods: forbidden: no\n", "is partial, not complete"},
		"failed":       {`{"result":"failed",` + ended + `,"error":"answered 500"}`, "\nanswered 500\n", "is failed, not complete"},
		"skipped":      {`{"result":"skipped",` + ended + `,"error":"too early"}`, "\ntoo early\n", "is skipped, not complete"},
		"put off":      {`{"result":"skipped","tooEarly":true,` + ended + `,"error":"too early"}`, "PASS: the endpoint answered the last run, and put it off", ""},
		"not a report": {"{", "", "report.json: not a report of a run"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.json")
			if c.report != "" {
				if err := os.WriteFile(file, []byte(c.report), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			err := run(t.Context(), []string{"inventory", "--report", file}, &out)
			if !strings.Contains(out.String(), c.says) || strings.Contains(out.String(), "PASS") != (c.fails == "") {
				t.Errorf("it says %q", out.String())
			}
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
	if err := run(t.Context(), []string{"inventory"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "--report is required") {
		t.Errorf("without a report: %v", err)
	}
}
