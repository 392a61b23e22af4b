package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"helm.sh/helm/v3/pkg/cli"
	"helm.sh/helm/v3/pkg/getter"
	helmregistry "helm.sh/helm/v3/pkg/registry"
	"helm.sh/helm/v3/pkg/repo"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"

	ours "github.com/metawire/metawire/migrate/release"
)

// TestRepository: what a user adds as a repository of charts gives the chart.
func TestRepository(t *testing.T) {
	var r *release
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.ServeFile(w, req, r.file(filepath.Base(req.URL.Path)))
	}))
	defer served.Close()
	r = made(t, served.URL)
	charts, err := repo.NewChartRepository(&repo.Entry{Name: "metawire", URL: served.URL}, getter.All(cli.New()))
	if err != nil {
		t.Fatal(err)
	}
	charts.CachePath = t.TempDir()
	path, err := charts.DownloadIndexFile()
	if err != nil {
		t.Fatal(err)
	}
	i, err := repo.LoadIndexFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, err := i.Get("metawire", r.version)
	if err != nil {
		t.Fatal(err)
	}
	if found.AppVersion != r.version || !found.Created.Equal(commit) {
		t.Errorf("want appVersion %s of %s, got %s of %s", r.version, commit, found.AppVersion, found.Created)
	}
	get, err := getter.NewHTTPGetter()
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := get.Get(found.URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	checkChart(t, r, pulled.Bytes())
	if sum := sha256.Sum256(pulled.Bytes()); hex.EncodeToString(sum[:]) != found.Digest {
		t.Errorf("the repository tells the digest %s, it is %x", found.Digest, sum)
	}
}

// checkChart: the bytes are the packaged chart's, and it has all files that the
// command line carries.
func checkChart(t *testing.T, r *release, chart []byte) {
	t.Helper()
	packaged, err := os.ReadFile(r.file(r.chartFile()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(packaged, chart) {
		t.Errorf("want the chart of the release, %d bytes, got others, %d", len(packaged), len(chart))
	}
	entries, err := readTar(r.file(r.chartFile()))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		got[strings.TrimPrefix(e.name, "metawire/")] = string(e.data)
	}
	embedded, err := ours.Chart()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range embedded.Raw {
		want[f.Name] = string(f.Data)
	}
	delete(got, "Chart.yaml") // Helm writes it anew
	delete(want, "Chart.yaml")
	delete(want, "README.md.gotmpl") // .helmignore
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the packaged chart is not the command line's:\n%s", diff)
	}
}

// TestOCILayout: copied into a registry, as the release is published, helm pull
// has the chart.
func TestOCILayout(t *testing.T) {
	r := made(t, "https://release.example")
	to, end := published(t, r, "chart")
	defer end()
	client, err := helmregistry.NewClient(helmregistry.ClientOptPlainHTTP(), helmregistry.ClientOptWriter(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := client.Pull(to.Reference.Registry + "/" + to.Reference.Repository + ":" + r.version)
	if err != nil {
		t.Fatal(err)
	}
	checkChart(t, r, pulled.Chart.Data)
}

// TestSettled: of an image that an engine has built stays what runs.
func TestSettled(t *testing.T) {
	built, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	here := platform{"linux", "arm64"}
	if _, err := settled(built, here, commit); err == nil || !strings.Contains(err.Error(), "the engine has built for") {
		t.Errorf("want the wrong platform refused, got %v", err)
	}
	config := func(change func(*v1.ConfigFile)) v1.Hash {
		t.Helper()
		image, err := stamped(built, change)
		if err != nil {
			t.Fatal(err)
		}
		if image, err = settled(image, here, commit); err != nil {
			t.Fatal(err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	plain := config(func(*v1.ConfigFile) {})
	engine := config(func(c *v1.ConfigFile) {
		c.Created = v1.Time{Time: time.Now()}
		c.Config.Labels = map[string]string{"io.buildah.version": "1"}
		c.History = []v1.History{{CreatedBy: "an engine", Created: c.Created}}
	})
	if plain != engine {
		t.Errorf("the engine and the time of the build make another image: %s, %s", plain, engine)
	}
	if other := config(func(c *v1.ConfigFile) { c.Config.User = "0" }); other == plain {
		t.Error("another user makes no other image")
	}
}

// TestImageLayout: copied into a registry, as the release is published, the image
// of each platform is there, in OCI's own types.
func TestImageLayout(t *testing.T) {
	r := made(t, "https://release.example", step{"image", func(_ context.Context, r *release) error {
		built, err := random.Image(64, 1)
		if err != nil {
			return err
		}
		image, err := stamped(built, func(*v1.ConfigFile) {})
		if err != nil {
			return err
		}
		here := platform{"linux", "arm64"}
		if image, err = settled(image, here, commit); err != nil {
			return err
		}
		return r.imageLayout(withImage(empty.Index, image, here))
	}})
	to, end := published(t, r, "image")
	defer end()
	arm := oras.ResolveOptions{TargetPlatform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}
	found, data, err := oras.FetchBytes(t.Context(), to, r.version, oras.FetchBytesOptions{FetchOptions: oras.FetchOptions{ResolveOptions: arm}})
	if err != nil {
		t.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	got := []string{found.MediaType, manifest.Config.MediaType, manifest.Layers[0].MediaType}
	want := []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("types of manifest, configuration and layer:\n%s", diff)
	}
}

// published copies a layout of the release into a registry, until end.
func published(t *testing.T, r *release, what string) (to *remote.Repository, end func()) {
	t.Helper()
	from, err := oci.NewFromTar(t.Context(), r.file(fmt.Sprintf("metawire-%s-%s.oci.tar", r.version, what)))
	if err != nil {
		t.Fatal(err)
	}
	address, stop, err := serveRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if to, err = remote.NewRepository(address + "/published/metawire"); err != nil {
		t.Fatal(err)
	}
	to.PlainHTTP = true
	if _, err := oras.Copy(t.Context(), from, r.version, to, r.version, oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	return to, func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// stamped is the image as an engine for Linux on arm64 has left it.
func stamped(image v1.Image, change func(*v1.ConfigFile)) (v1.Image, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "arm64"
	change(config)
	return mutate.ConfigFile(image, config)
}
