package inventory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func spoolPage(n int) Page {
	return Page{
		Run: testRunID, Number: n, Last: n == 3, Key: fmt.Sprintf("%s-%d", testRunID, n), Path: "/x?y=z",
		Body: []byte{0, '\n', byte(n), '\n'}, Gzip: n%2 == 0, Objects: n, Bytes: 100,
	}
}

func mustSpool(t *testing.T, dir string, limit int64) *Spool {
	t.Helper()
	s, err := OpenSpool(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSpoolSurvives: pages come back as they were and in their order, from
// another process too; what a write left half done does not.
func TestSpoolSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "for us")
	s := mustSpool(t, dir, 0)
	for n := 1; n <= 12; n++ {
		if err := s.put(spoolPage(n)); err != nil {
			t.Fatal(err)
		}
		if n%5 == 0 {
			if err := os.WriteFile(filepath.Join(dir, ".new-123"), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
			s = mustSpool(t, dir, 0)
		}
	}
	if n, size := s.Waiting(); n != 12 || size == 0 {
		t.Errorf("%d pages of %d bytes wait", n, size)
	}
	for n := 1; n <= 12; n++ {
		p, name, err := s.first()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(spoolPage(n), p); d != "" || runOf(name) != testRunID {
			t.Errorf("%s: %s", name, d)
		}
		if err := s.remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, name, err := s.first(); name != "" || err != nil {
		t.Error(name, err)
	}
	left, err := os.ReadDir(dir)
	if n, size := s.Waiting(); n != 0 || size != 0 || len(left) != 0 || err != nil {
		t.Errorf("%d pages, %d bytes, files %v, %v", n, size, left, err)
	}
}

func TestSpoolIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := mustSpool(t, dir, 1000)
	var kept int
	for ; ; kept++ {
		if err := s.put(spoolPage(kept + 1)); err != nil {
			if !errors.Is(err, ErrSpoolFull) {
				t.Error(err)
			}
			break
		}
	}
	if _, size := s.Waiting(); kept == 0 || size > 1000 {
		t.Errorf("%d pages of %d bytes", kept, size)
	}
	_, name, err := s.first()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.remove(name), s.put(spoolPage(9))); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
	// The limit counts what another process left.
	if err := mustSpool(t, dir, 1000).put(spoolPage(10)); !errors.Is(err, ErrSpoolFull) {
		t.Error(err)
	}
}

// TestSpoolCorrupt: every byte that is changed, and every length, is noticed.
func TestSpoolCorrupt(t *testing.T) {
	dir := t.TempDir()
	if err := mustSpool(t, dir, 0).put(spoolPage(1)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.page"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	for n := range good {
		if err := os.WriteFile(files[0], good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, name, err := mustSpool(t, dir, 0).first(); !errors.Is(err, errCorrupt) || !strings.HasSuffix(name, ".page") {
			t.Fatalf("%d bytes: %q %v", n, name, err)
		}
	}
}

// all reads every page that waits.
func (s *Spool) all(t *testing.T) []Page {
	t.Helper()
	var out []Page
	for _, f := range s.files {
		content, err := os.ReadFile(filepath.Join(s.dir, f.name))
		if err != nil {
			t.Fatal(err)
		}
		p, err := parseSpooled(content)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}
