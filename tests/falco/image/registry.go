package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
)

// Registry is an OCI registry without TLS. It has the plugin's artifact in the
// versions that go with Falco 0.40 and later.
type Registry struct {
	// Reference is the artifact's, without a tag.
	Reference string

	server *http.Server
	done   chan error
}

// versions of the artifact; its library says its version.
func versions() []string { return []string{"0.3.1", "0.4.1"} }

// Serve starts a registry on a free port of the address, until Close.
func Serve(ctx context.Context, address string) (*Registry, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	r := &Registry{
		Reference: l.Addr().String() + "/falcosecurity/plugins/plugin/k8smeta",
		server: &http.Server{
			Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: 5 * time.Second,
		},
		done: make(chan error, 1),
	}
	go func() { r.done <- r.server.Serve(l) }()
	for _, version := range versions() {
		if err := r.push(ctx, version); err != nil {
			return nil, errors.Join(fmt.Errorf("push the plugin's artifact %s: %w", version, err), r.Close())
		}
	}
	return r, nil
}

// Close ends the registry.
func (r *Registry) Close() error {
	err := r.server.Close()
	if served := <-r.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// push makes the artifact as Falco's project does: an index with one manifest a
// platform, whose one layer holds the library.
func (r *Registry) push(ctx context.Context, version string) error {
	repo, err := remote.NewRepository(r.Reference)
	if err != nil {
		return err
	}
	repo.PlainHTTP = true
	put := func(mediaType string, data []byte) ocispec.Descriptor {
		d := content.NewDescriptorFromBytes(mediaType, data)
		err = errors.Join(err, repo.Push(ctx, d, bytes.NewReader(data)))
		return d
	}
	putJSON := func(mediaType string, v any) ocispec.Descriptor {
		b, failed := json.Marshal(v)
		err = errors.Join(err, failed)
		return put(mediaType, b)
	}
	library, failed := layer(Library(version))
	if failed != nil {
		return failed
	}
	manifest := putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: putJSON("application/vnd.cncf.falco.plugin.config.v1+json", map[string]string{"name": "k8smeta", "version": version}),
		Layers: []ocispec.Descriptor{put("application/vnd.cncf.falco.plugin.layer.v1+tar.gz", library)},
	})
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	index := putJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{manifest},
	})
	if err != nil {
		return err
	}
	return repo.Tag(ctx, index, version)
}

func layer(library []byte) ([]byte, error) {
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	if err := w.WriteHeader(&tar.Header{Name: "libk8smeta.so", Mode: 0o755, Size: int64(len(library))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(library); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
