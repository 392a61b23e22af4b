package wire

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
)

// maxLinks bounds the links from the library's path to the library.
const maxLinks = 8

// pullFile gets a file out of an image, as it is in a container of that image:
// the topmost layer that has it wins, unless one above took it away. Links are
// followed where the path itself is one, not where a directory of it is.
func pullFile(ctx context.Context, image, name string, plainHTTP bool, file string) error {
	if image == "" || name == "" {
		return errors.New("plugin.image or plugin.path is empty")
	}
	s, err := open(image, plainHTTP)
	if err != nil {
		return err
	}
	defer s.close()
	m, err := s.manifest(ctx)
	if err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	name = clean(name)
	for range maxLinks {
		link, err := s.find(ctx, m, name, file)
		if err != nil {
			return fmt.Errorf("image %s: %s: %w", image, name, err)
		}
		if link == "" {
			return nil
		}
		name = link
	}
	return fmt.Errorf("image %s: over %d links", image, maxLinks)
}

// find writes the file, or returns what the name links to.
func (s *source) find(ctx context.Context, m ocispec.Manifest, name, file string) (link string, err error) {
	for _, desc := range slices.Backward(m.Layers) {
		link, found, gone, err := s.layer(ctx, desc, name, file)
		switch {
		case err != nil:
			return "", err
		case found:
			return link, nil
		case gone:
			return "", errors.New("a layer removed it")
		}
	}
	return "", errors.New("no layer has it")
}

// layer looks into one layer. gone says that those below do not count.
func (s *source) layer(ctx context.Context, desc ocispec.Descriptor, name, file string) (link string, found, gone bool, err error) {
	err = s.walk(ctx, desc, func(h *tar.Header, body io.Reader, finish func() error) (bool, error) {
		entry := clean(h.Name)
		if entry != name {
			gone = gone || hides(entry, h.Typeflag, name)
			return true, nil
		}
		found = true
		switch h.Typeflag {
		case tar.TypeReg:
			return false, writeLibrary(file, body, finish)
		case tar.TypeLink:
			link = clean(h.Linkname)
		case tar.TypeSymlink:
			link = h.Linkname
			if !path.IsAbs(link) {
				link = path.Join(path.Dir(name), link)
			}
			link = clean(link)
		default:
			return false, errors.New("is not a file")
		}
		return false, finish()
	})
	return link, found, gone, err
}

// hides says whether an entry takes the name away from the layers below: a
// whiteout of it or of a directory above it, a directory above it that hides its
// old content, or something that is no directory in such a directory's place.
func hides(entry string, kind byte, name string) bool {
	dir, base := path.Split(entry)
	above := func(p string) bool { return name == p || strings.HasPrefix(name, strings.TrimSuffix(p, "/")+"/") }
	if base == ".wh..wh..opq" {
		return above(path.Clean(dir))
	}
	if removed, ok := strings.CutPrefix(base, ".wh."); ok {
		return above(path.Join(dir, removed))
	}
	return kind != tar.TypeDir && above(entry)
}

// walk calls visit for every entry of a layer until it returns false or an
// error. finish reads the layer to its end and verifies its digest: what came
// before counts only if it returns nil. walk itself does so at the end.
func (s *source) walk(ctx context.Context, desc ocispec.Descriptor, visit func(h *tar.Header, body io.Reader, finish func() error) (bool, error)) error {
	blob, err := s.repository.Blobs().Fetch(ctx, desc)
	if err != nil {
		return fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	defer blob.Close()
	verified := content.NewVerifyReader(blob, desc)
	finish := func() error {
		if _, err := io.Copy(io.Discard, verified); err != nil {
			return fmt.Errorf("layer %s: %w", desc.Digest, err)
		}
		if err := verified.Verify(); err != nil {
			return fmt.Errorf("layer %s: %w", desc.Digest, err)
		}
		return nil
	}
	archive, err := decompress(desc.MediaType, verified)
	if err != nil {
		return fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	entries := tar.NewReader(&bound{ctx: ctx, r: archive})
	for {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return finish()
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w", desc.Digest, err)
		}
		if more, err := visit(h, entries, finish); err != nil || !more {
			return err
		}
	}
}

func decompress(mediaType string, r io.Reader) (io.Reader, error) {
	switch mediaType {
	case pluginLayer, ocispec.MediaTypeImageLayerGzip, dockerLayer:
		return gzip.NewReader(r)
	case ocispec.MediaTypeImageLayer:
		return r, nil
	}
	return nil, fmt.Errorf("media type %q is not supported", mediaType)
}

// bound ends a read when the context does: what decompresses to very much comes
// from few bytes, so the connection alone would not end it.
type bound struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other way to get it
	r   io.Reader
}

// Read implements io.Reader.
func (b *bound) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}
