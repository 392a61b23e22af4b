package release_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metawire/metawire/tests/e2e/release"
)

func TestParseImage(t *testing.T) {
	for name, want := range map[string]release.Image{
		"ghcr.io/metawire/metawire:dev": {Repository: "ghcr.io/metawire/metawire", Tag: "dev"},
		"localhost:5000/metawire:1.2":   {Repository: "localhost:5000/metawire", Tag: "1.2"},
		"metawire:dev":                  {Repository: "metawire", Tag: "dev"},
	} {
		if got, err := release.ParseImage(name); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"metawire", "localhost:5000/metawire"} {
		if got, err := release.ParseImage(name); err == nil {
			t.Errorf("%s has no tag, got %+v", name, got)
		}
	}
}

func TestImageIn(t *testing.T) {
	for name, tc := range map[string]struct {
		file, content string
		want          string // the image, or part of the error
	}{
		"an image":         {"manifest.json", `[{"Config": "0c1e.json", "RepoTags": ["ghcr.io/metawire/metawire:dev"]}]`, "ghcr.io/metawire/metawire:dev 0c1e"},
		"no manifest":      {"index.json", "{}", "no docker-archive"},
		"several images":   {"manifest.json", `[{"RepoTags": ["a:1"]}, {"RepoTags": ["b:1"]}]`, "want one image with one tag"},
		"no tag":           {"manifest.json", `[{"Config": "0c1e.json"}]`, "want one image with one tag"},
		"not a manifest":   {"manifest.json", "{}", "manifest.json: json"},
		"not an archive":   {"", "something else", "read "},
		"nothing is there": {"", "", "make image"},
	} {
		t.Run(name, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "image.tar")
			content := []byte(tc.content)
			if tc.file != "" {
				content = archived(t, tc.file, tc.content)
			}
			if tc.content != "" {
				if err := os.WriteFile(archive, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			image, err := release.ImageIn(archive)
			got := image.String() + " " + image.ID
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// archived is an archive with one file.
func archived(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
