package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/tests/cluster"
)

// commit is the time of the commit that these tests release.
var commit = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// made makes a release of everything but what takes minutes to compile, and
// what else is asked for.
func made(t *testing.T, url string, more ...step) *release {
	t.Helper()
	version, err := versionOf("")
	if err != nil {
		t.Fatal(err)
	}
	r := &release{version: version, epoch: commit, url: url, out: t.Output()}
	if err := r.makeIn(t.Context(), t.TempDir(), append(texts(), more...)); err != nil {
		t.Fatal(err)
	}
	return r
}

// small is a program that tells its version, for this platform, packed as the
// command line is.
func small() step {
	return step{"a program", func(ctx context.Context, r *release) error {
		return r.program(ctx, "probe", platform{runtime.GOOS, runtime.GOARCH})
	}}
}

// TestReproducible: two releases of one commit are equal, and nothing in them
// tells when it was built.
func TestReproducible(t *testing.T) {
	first, second := made(t, "https://release.example", small()), made(t, "https://release.example", small())
	sums, err := os.ReadFile(first.file(sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(second.file(sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(sums), string(again)); diff != "" {
		t.Errorf("the second release differs:\n%s", diff)
	}
	checkSums(t, first, string(sums))
	checkProgram(t, first)
	for _, name := range names(t, first) {
		if strings.HasSuffix(name, "gz") || strings.HasSuffix(name, ".tar") {
			checkTimes(t, first.file(name))
			continue
		}
		data, err := os.ReadFile(first.file(name))
		if err != nil {
			t.Fatal(err)
		}
		if now := time.Now().Format("2006-01-02"); bytes.Contains(data, []byte(now)) {
			t.Errorf("%s tells the day of the build", name)
		}
	}
}

// checkSums: each file but the sums' own has its line, as sha256sum writes it.
func checkSums(t *testing.T, r *release, sums string) {
	t.Helper()
	var want strings.Builder
	for _, name := range names(t, r) {
		data, err := os.ReadFile(r.file(name))
		if err != nil {
			t.Fatal(err)
		}
		if name != sumsFile {
			sum := sha256.Sum256(data)
			want.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
		}
	}
	if diff := cmp.Diff(want.String(), sums); diff != "" {
		t.Errorf("%s:\n%s", sumsFile, diff)
	}
}

func names(t *testing.T, r *release) (names []string) {
	t.Helper()
	files, err := os.ReadDir(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// checkTimes: what is in an archive is sorted, of the commit's time and nobody's.
func checkTimes(t *testing.T, archive string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := io.Reader(f)
	if strings.HasSuffix(archive, "gz") {
		zip, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		if !zip.ModTime.IsZero() {
			t.Errorf("%s tells that it was compressed at %s", archive, zip.ModTime)
		}
		in = zip
	}
	var all []string
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(commit) || header.Uid != 0 || header.Uname != "" {
			t.Errorf("%s: %s is of %s and %q", archive, header.Name, header.ModTime, header.Uname)
		}
		all = append(all, header.Name)
	}
	if len(all) == 0 || !slices.IsSorted(all) {
		t.Errorf("%s: want files, sorted, got %q", archive, all)
	}
}

// checkProgram: the archive has the license and a program that tells its version.
func checkProgram(t *testing.T, r *release) {
	t.Helper()
	entries, err := readTar(r.file(fmt.Sprintf("probe-%s-%s-%s.tar.gz", r.version, runtime.GOOS, runtime.GOARCH)))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || entries[0].name != "LICENSE" || entries[1].name != "probe" || entries[1].mode != 0o755 {
		t.Fatalf("want LICENSE and an executable, got %d entries", len(entries))
	}
	if !bytes.Contains(entries[0].data, []byte("Apache License")) {
		t.Error("LICENSE is not the license")
	}
	program := filepath.Join(t.TempDir(), "probe")
	if err := os.WriteFile(program, entries[1].data, 0o700); err != nil {
		t.Fatal(err)
	}
	if says, err := output(t.Context(), program, "--version"); err != nil || !strings.Contains(says, r.version+" (") {
		t.Errorf("the program says %q, %v, want version %s", says, err, r.version)
	}
	if bytes.Contains(entries[1].data, []byte(moduleDir(t))) {
		t.Error("the program tells in which directory it was built")
	}
}

func moduleDir(t *testing.T) string {
	t.Helper()
	dir, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestManifests: a real API server takes them from kubectl, twice, and the second
// time changes nothing.
func TestManifests(t *testing.T) {
	r := made(t, "https://release.example")
	c, err := cluster.Start(t.Context(), cluster.Options{Size: cluster.ControlPlane, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	kubectl := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(c.Bin(), "kubectl"), append(args, "--kubeconfig", c.Kubeconfig())...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	for _, how := range [][]string{{}, {"--server-side", "--force-conflicts"}} {
		for range 2 {
			out := kubectl(append([]string{"apply", "-f", r.file("metawire.yaml")}, how...)...)
			if strings.Contains(out, "Warning") || !strings.Contains(out, "deployment.apps/metawire-collector ") {
				t.Errorf("kubectl apply %q says:\n%s", how, out)
			}
		}
	}
	if out := kubectl("diff", "-f", r.file("metawire.yaml")); out != "" {
		t.Errorf("what was applied is not the manifest:\n%s", out)
	}
	monitor, err := os.ReadFile(r.file("metawire-servicemonitor.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(monitor), "\nkind: "); n != 1 || !strings.Contains(string(monitor), "\nkind: ServiceMonitor\n") {
		t.Errorf("want one object, a ServiceMonitor, got:\n%s", monitor)
	}
}

// TestRefused: what cannot be released is told.
func TestRefused(t *testing.T) {
	if _, err := versionOf("99.0.0"); err == nil || !strings.Contains(err.Error(), `version "99.0.0" is asked for`) {
		t.Errorf("want another version than the chart's refused, got %v", err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "empty"}} {
		if _, err := output(t.Context(), "git", args...); err != nil {
			t.Fatal(err)
		}
	}
	if at, err := commitTime(t.Context(), false); err != nil || time.Since(at) > time.Hour {
		t.Errorf("want the time of the commit, got %s, %v", at, err)
	}
	if err := os.WriteFile("new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := commitTime(t.Context(), false); err == nil || !strings.Contains(err.Error(), "DRAFT=1") {
		t.Errorf("want what is not committed refused, got %v", err)
	}
	if _, err := commitTime(t.Context(), true); err != nil {
		t.Errorf("a draft is built of what is not committed: %v", err)
	}
}
