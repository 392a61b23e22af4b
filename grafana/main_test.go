package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCurrent: the file is what the panels make.
func TestCurrent(t *testing.T) {
	made := filepath.Join(t.TempDir(), "metawire.json")
	if err := run([]string{made}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("metawire.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Error("metawire.json is not current: make generate")
	}
}

// TestNegativeFigures: the time until something shows that it is over, too.
func TestNegativeFigures(t *testing.T) {
	found := false
	for _, r := range rows() {
		for _, p := range r.panels {
			for _, q := range p.queries {
				if !strings.Contains(q.expr, "- time()") || p.kind != series {
					continue
				}
				found = true
				config, _ := p.object()["fieldConfig"].(object)
				defaults, _ := config["defaults"].(object)
				if least, ok := defaults["min"]; ok {
					t.Errorf("panel %q shows nothing below %v", p.title, least)
				}
			}
		}
	}
	if !found {
		t.Error("no panel has such figures")
	}
}
