package main

import (
	"bytes"
	"os"
	"path/filepath"
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
