package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metawire/metawire/internal/wiring"
)

// asMain makes the test binary the command itself.
const asMain = "METAWIRE_WIRE_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		os.Exit(0) //nolint:forbidigo // this is main
	}
	os.Exit(m.Run()) //nolint:forbidigo // as TestMain does
}

func TestAlwaysExitsZero(t *testing.T) {
	for name, value := range map[string]string{
		"no task": "", "not JSON": "{", "another type": `{"host": 1}`, "nothing in it": "{}",
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), asMain+"=1", wiring.TaskVariable+"="+value)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if bytes.Count(out, []byte("\n")) != 1 || !bytes.Contains(out, []byte("not wired")) {
				t.Errorf("log: %s", out)
			}
		})
	}
}

func TestGuard(t *testing.T) {
	v := guard(time.Minute, func() wiring.Verdict {
		return wiring.Verdict{Wired: true, Reason: "xyz"[:len(os.Args[0])+4]}
	})
	if v.Wired || !strings.Contains(v.Reason, "panic") {
		t.Errorf("a panic: %s", v)
	}
	release := make(chan struct{})
	v = guard(time.Millisecond, func() wiring.Verdict { <-release; return wiring.Verdict{Wired: true} })
	close(release)
	if v.Wired || !strings.Contains(v.Reason, "no result") {
		t.Errorf("work without an end: %s", v)
	}
}

func TestReport(t *testing.T) {
	message := filepath.Join(t.TempDir(), "termination-log")
	if err := os.WriteFile(message, []byte(strings.Repeat("x", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	want := wiring.Verdict{Wired: true, Ticket: true, Reason: "done"}
	var log bytes.Buffer
	report(want, &log, message)
	b, err := os.ReadFile(message)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wiring.ParseVerdict(string(b)); err != nil || got != want {
		t.Errorf("got %s, %v", b, err)
	}
	report(want, &log, filepath.Join(t.TempDir(), "none")) // not writable: nothing happens
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines: %s", n, &log)
	}
}
