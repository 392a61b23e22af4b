package wire

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/metawire/metawire/internal/version"
)

// Media types that the OCI's own constants do not have.
const (
	pluginLayer    = "application/vnd.cncf.falco.plugin.layer.v1+tar.gz"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// maxManifest bounds a manifest or an index.
const maxManifest = 4 << 20

// source is a repository of a registry.
type source struct {
	repository *remote.Repository
	transport  *http.Transport
}

// open returns the repository of a reference, and needs no credentials: pods
// have none for the plugin's registry.
func open(reference string, plainHTTP bool) (*source, error) {
	ref, err := registry.ParseReference(withRegistry(reference))
	if err != nil {
		return nil, fmt.Errorf("reference %q: %w", reference, err)
	}
	proxied, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("no transport for HTTP")
	}
	transport := proxied.Clone()
	client := &auth.Client{
		Client: &http.Client{Transport: retry.NewTransport(transport)},
		Cache:  auth.NewCache(),
	}
	client.SetUserAgent("metawire/" + version.Version)
	return &source{
		repository: &remote.Repository{Client: client, Reference: ref, PlainHTTP: plainHTTP},
		transport:  transport,
	}, nil
}

func (s *source) close() { s.transport.CloseIdleConnections() }

// withRegistry completes a name as image names are: without a registry it is
// Docker Hub's.
func withRegistry(name string) string {
	first, _, found := strings.Cut(name, "/")
	switch {
	case !found:
		return "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + name
	}
	return name
}

// manifest returns that of this platform.
func (s *source) manifest(ctx context.Context) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	desc, err := s.repository.Resolve(ctx, s.repository.Reference.ReferenceOrDefault())
	if err != nil {
		return m, err
	}
	if desc.MediaType == ocispec.MediaTypeImageIndex || desc.MediaType == dockerIndex {
		var index ocispec.Index
		if err := s.decode(ctx, desc, &index); err != nil {
			return m, err
		}
		if desc, err = platform(index); err != nil {
			return m, err
		}
	}
	if desc.MediaType != ocispec.MediaTypeImageManifest && desc.MediaType != dockerManifest {
		return m, fmt.Errorf("media type %q is no image's", desc.MediaType)
	}
	return m, s.decode(ctx, desc, &m)
}

func platform(index ocispec.Index) (ocispec.Descriptor, error) {
	for _, d := range index.Manifests {
		if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH {
			return d, nil
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("there is none for linux/%s", runtime.GOARCH)
}

// decode reads a manifest or an index; what is read has the descriptor's digest.
func (s *source) decode(ctx context.Context, desc ocispec.Descriptor, into any) error {
	if desc.Size > maxManifest {
		return fmt.Errorf("manifest %s has over %d bytes", desc.Digest, maxManifest)
	}
	b, err := content.FetchAll(ctx, s.repository, desc)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return nil
}

// pullArtifact gets the library out of the plugin's OCI artifact.
func pullArtifact(ctx context.Context, reference string, plainHTTP bool, file string) error {
	s, err := open(reference, plainHTTP)
	if err != nil {
		return err
	}
	defer s.close()
	m, err := s.manifest(ctx)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", reference, err)
	}
	for _, desc := range m.Layers {
		if desc.MediaType != pluginLayer {
			continue
		}
		found, err := s.extract(ctx, desc, file, func(name string) bool { return path.Base(name) == libraryName })
		if err != nil {
			return fmt.Errorf("artifact %s: %w", reference, err)
		}
		if found {
			return nil
		}
	}
	return fmt.Errorf("artifact %s: no layer of media type %s holds %s", reference, pluginLayer, libraryName)
}

// extract writes the first regular file that matches to file; false if the layer
// has none. Names in the layer choose what is read, never where it is written.
func (s *source) extract(ctx context.Context, desc ocispec.Descriptor, file string, matches func(name string) bool) (bool, error) {
	found := false
	err := s.walk(ctx, desc, func(h *tar.Header, body io.Reader, finish func() error) (bool, error) {
		if h.Typeflag != tar.TypeReg || !matches(clean(h.Name)) {
			return true, nil
		}
		found = true
		return false, writeLibrary(file, body, finish)
	})
	return found, err
}

// clean makes an entry's name absolute within its layer.
func clean(name string) string { return path.Clean("/" + name) }
