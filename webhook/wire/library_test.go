package wire

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/metawire/metawire/internal/wiring"
)

// library is what passes for one of this machine, told apart by its text.
func library(text string) string {
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	binary.LittleEndian.PutUint16(head[18:], uint16(machine))
	return string(head) + text
}

// foreign is a library of a machine that this is not.
func foreign() string {
	b := []byte(library(""))
	binary.LittleEndian.PutUint16(b[18:], uint16(elf.EM_S390))
	return string(b)
}

func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, h := range entries {
		body := h.PAXRecords["body"]
		h.PAXRecords, h.Mode, h.Size = nil, 0o600, int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name, body string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"body": body}}
}

// hub is a registry on loopback.
type hub struct {
	t       *testing.T
	address string
	repo    *remote.Repository
}

func newHub(t *testing.T) *hub {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	repo, err := remote.NewRepository(address + "/team/k8smeta")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	return &hub{t: t, address: address, repo: repo}
}

func (h *hub) name() string { return h.address + "/team/k8smeta" }

func (h *hub) push(mediaType string, content []byte) ocispec.Descriptor {
	h.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := h.repo.Push(h.t.Context(), d, bytes.NewReader(content)); err != nil {
		h.t.Fatal(err)
	}
	return d
}

func (h *hub) pushJSON(mediaType string, v any) ocispec.Descriptor {
	h.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.push(mediaType, b)
}

func (h *hub) image(layerType string, layers ...[]byte) ocispec.Descriptor {
	h.t.Helper()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    h.push("application/vnd.cncf.falco.plugin.config.v1+json", []byte("{}")),
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, h.push(layerType, l))
	}
	return h.pushJSON(m.MediaType, m)
}

// index puts an index of these manifests, by their architectures, under a tag.
func (h *hub) index(tag string, byArchitecture map[string]ocispec.Descriptor) {
	h.t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for arch, d := range byArchitecture {
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	h.tag(h.pushJSON(index.MediaType, index), tag)
}

func (h *hub) tag(d ocispec.Descriptor, tag string) {
	h.t.Helper()
	if err := h.repo.Tag(h.t.Context(), d, tag); err != nil {
		h.t.Fatal(err)
	}
}

type libraryCase struct {
	plugin  wiring.Plugin
	version string
	want    string // text of the library
	wantErr string
}

func (tt libraryCase) run(t *testing.T) {
	t.Helper()
	o := tree(t, nil)
	tt.plugin.PlainHTTP = true
	got, err := getLibrary(t.Context(), wiring.Task{Plugin: tt.plugin}, parseVersion(tt.version), o)
	entries, _ := os.ReadDir(o.path(wiring.GeneratedDir))
	if tt.wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
			t.Errorf("error is %v, want %q", err, tt.wantErr)
		}
		if len(entries) > 0 {
			t.Errorf("left behind: %v", entries)
		}
		return
	}
	if err != nil || got != wiring.LibraryFile {
		t.Fatalf("got %q, %v", got, err)
	}
	b, err := os.ReadFile(o.path(got))
	if err != nil || string(b) != library(tt.want) {
		t.Errorf("got %q, %v", b, err)
	}
	if info, err := entries[0].Info(); len(entries) != 1 || err != nil || info.Mode() != 0o644 {
		t.Errorf("files: %v", entries)
	}
}

func TestLibraryFromRegistry(t *testing.T) {
	h := newHub(t)
	artifact := func(text string) ocispec.Descriptor {
		return h.image(pluginLayer, archive(t, file("README", ""), file("libk8smeta.so", library(text))))
	}
	for _, v := range []string{"0.2.1", "0.3.1", "0.4.1", "9"} {
		h.index(v, map[string]ocispec.Descriptor{runtime.GOARCH: artifact(v), "s390x": artifact("wrong")})
	}
	pinned := artifact("pinned")
	h.index("foreign", map[string]ocispec.Descriptor{"s390x": artifact("wrong")})
	h.tag(h.image(ocispec.MediaTypeImageLayerGzip, archive(t, file("libk8smeta.so", library("")))), "type")
	h.tag(h.image(pluginLayer, archive(t, file("other.so", library("")))), "other")
	h.tag(h.image(pluginLayer, archive(t, file("../../libk8smeta.so", library("up")))), "up")
	h.tag(h.image(pluginLayer, archive(t, file("libk8smeta.so", foreign()))), "machine")
	h.tag(h.image(pluginLayer, archive(t, file("libk8smeta.so", "#!/bin/sh and so on and on"))), "script")
	h.tag(h.image(pluginLayer, []byte("not an archive")), "broken")
	at := func(suffix string) wiring.Plugin {
		return wiring.Plugin{Source: wiring.PluginRegistry, Reference: h.name() + suffix}
	}
	for name, tt := range map[string]libraryCase{
		"current":           {plugin: at(""), want: "0.4.1"},
		"Falco 0.41":        {plugin: at(""), version: "0.41.0", want: "0.3.1"},
		"Falco 0.38":        {plugin: at(""), version: "0.38.0", want: "0.2.1"},
		"tag":               {plugin: at(":9"), version: "0.41.0", want: "9"},
		"digest":            {plugin: at("@" + pinned.Digest.String()), version: "0.41.0", want: "pinned"},
		"no traversal":      {plugin: at(":up"), want: "up"},
		"other platform":    {plugin: at(":foreign"), wantErr: "none for linux/"},
		"other media type":  {plugin: at(":type"), wantErr: "no layer of media type"},
		"no library":        {plugin: at(":other"), wantErr: "holds libk8smeta.so"},
		"other machine":     {plugin: at(":machine"), wantErr: "the library is for"},
		"no library at all": {plugin: at(":script"), wantErr: "not an ELF file"},
		"no archive":        {plugin: at(":broken"), wantErr: "gzip"},
		"no such tag":       {plugin: at(":none"), wantErr: "not found"},
		"no such digest":    {plugin: at("@" + digest.FromString("x").String()), wantErr: "not found"},
		"no reference":      {plugin: wiring.Plugin{Source: wiring.PluginRegistry}, wantErr: "reference"},
		"unknown source":    {plugin: wiring.Plugin{Source: "x"}, wantErr: "not known"},
	} {
		t.Run(name, tt.run)
	}
}

func TestLibraryFromImage(t *testing.T) {
	h := newHub(t)
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	for tag, layers := range map[string][][]byte{
		"top":     {archive(t, file("opt/p.so", library("old"))), archive(t, file("./opt/p.so", library("new"))), archive(t, file("x", ""))},
		"gone":    {archive(t, file("opt/p.so", library(""))), archive(t, file("opt/.wh.p.so", ""))},
		"dirgone": {archive(t, file("opt/p.so", library(""))), archive(t, file(".wh.opt", ""))},
		"opaque":  {archive(t, file("opt/p.so", library(""))), archive(t, file("opt/.wh..wh..opq", ""))},
		"covered": {archive(t, file("opt/p.so", library(""))), archive(t, link("opt", "usr"))},
		"back":    {archive(t, file("opt/p.so", library("old"))), archive(t, file("opt/.wh..wh..opq", ""), file("opt/p.so", library("new")))},
		"near":    {archive(t, file("opt/p.so", library("kept"))), archive(t, file("opt/.wh.p", ""), file("op/.wh..wh..opq", ""))},
		"link":    {archive(t, file("opt/p-1.so", library("linked"))), archive(t, link("opt/p.so", "p-1.so"))},
		"loop":    {archive(t, link("opt/p.so", "p.so"))},
		"dir":     {archive(t, tar.Header{Name: "opt/p.so/", Typeflag: tar.TypeDir})},
	} {
		h.tag(h.image(ocispec.MediaTypeImageLayerGzip, layers...), tag)
	}
	at := func(tag string) wiring.Plugin {
		return wiring.Plugin{Source: wiring.PluginImage, Image: h.name() + ":" + tag, Path: "/opt/p.so"}
	}
	h.tag(h.image("application/vnd.oci.image.layer.v1.tar+zstd", []byte("x")), "zstd")
	for name, tt := range map[string]libraryCase{
		"the top layer wins":     {plugin: at("top"), want: "new"},
		"removed":                {plugin: at("gone"), wantErr: "removed"},
		"directory removed":      {plugin: at("dirgone"), wantErr: "removed"},
		"directory hidden":       {plugin: at("opaque"), wantErr: "removed"},
		"directory covered":      {plugin: at("covered"), wantErr: "removed"},
		"hidden and there again": {plugin: at("back"), want: "new"},
		"a neighbor removed":     {plugin: at("near"), want: "kept"},
		"link":                   {plugin: at("link"), want: "linked"},
		"link to itself":         {plugin: at("loop"), wantErr: "links"},
		"directory":              {plugin: at("dir"), wantErr: "not a file"},
		"compression":            {plugin: at("zstd"), wantErr: "not supported"},
		"no such image":          {plugin: at("none"), wantErr: "not found"},
		"no path":                {plugin: wiring.Plugin{Source: wiring.PluginImage, Image: h.name()}, wantErr: "empty"},
	} {
		t.Run(name, tt.run)
	}
}

// What a registry answers in bad faith is not believed.
func TestLibraryDigestIsVerified(t *testing.T) {
	h := newHub(t)
	good := archive(t, file("libk8smeta.so", library("good")))
	h.tag(h.image(pluginLayer, good), "1")
	bad := archive(t, file("libk8smeta.so", library("evil")))
	if len(bad) != len(good) {
		t.Fatalf("archives of %d and %d bytes", len(bad), len(good))
	}
	forged := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, digest.FromBytes(good).String()) {
			_, _ = w.Write(bad)
			return
		}
		r.Host = h.address
		http.Redirect(w, r, "http://"+h.address+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(forged.Close)
	libraryCase{
		plugin:  wiring.Plugin{Source: wiring.PluginRegistry, Reference: strings.TrimPrefix(forged.URL, "http://") + "/team/k8smeta:1"},
		wantErr: "mismatch",
	}.run(t)
}

func TestLibraryOfHangingRegistry(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() }) //nolint:errcheck // nothing was written
	o := tree(t, nil)
	o.Library = 100 * time.Millisecond
	began := time.Now()
	plugin := wiring.Plugin{Source: wiring.PluginRegistry, Reference: listener.Addr().String() + "/x/y", PlainHTTP: true}
	_, err = getLibrary(context.Background(), wiring.Task{Plugin: plugin}, falcoVersion{}, o)
	if err == nil || !strings.Contains(err.Error(), "deadline") || time.Since(began) > 10*time.Second {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
}

func TestLibraryWithoutARegistry(t *testing.T) {
	o := tree(t, map[string]string{wiring.LibraryFile: library("earlier")})
	unreachable := wiring.Plugin{Source: wiring.PluginRegistry, Reference: "127.0.0.1:1/x/y"}
	if got, err := getLibrary(t.Context(), wiring.Task{Plugin: unreachable}, falcoVersion{}, o); err != nil || got != wiring.LibraryFile {
		t.Errorf("an earlier run's library: got %q, %v", got, err)
	}
	own := wiring.Plugin{Source: wiring.PluginPreinstalled, Path: "/usr/share/falco/plugins/x.so"}
	if got, err := getLibrary(t.Context(), wiring.Task{Plugin: own}, falcoVersion{}, o); err != nil || got != own.Path {
		t.Errorf("preinstalled: got %q, %v", got, err)
	}
	if _, err := getLibrary(t.Context(), wiring.Task{Plugin: wiring.Plugin{Source: wiring.PluginPreinstalled}}, falcoVersion{}, o); err == nil {
		t.Error("preinstalled without a path: no error")
	}
}

func TestWithRegistry(t *testing.T) {
	for name, want := range map[string]string{
		"falco:1": "docker.io/library/falco:1", "team/falco": "docker.io/team/falco", "ghcr.io/a/b": "ghcr.io/a/b",
		"localhost/a": "localhost/a", "host:5000/a": "host:5000/a",
	} {
		if got := withRegistry(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
