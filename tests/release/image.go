package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageName is what the chart pulls.
const imageName = "ghcr.io/metawire/metawire"

// images builds the image for each platform: an archive each, to load into an
// engine or a node, and one with all of them, to push to a registry.
func images(ctx context.Context, r *release) error {
	all := v1.ImageIndex(empty.Index)
	for _, p := range platforms() {
		if p.os != "linux" {
			continue
		}
		image, err := r.buildImage(ctx, p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		all = withImage(all, image, p)
	}
	return r.imageLayout(all)
}

func withImage(all v1.ImageIndex, image v1.Image, p platform) v1.ImageIndex {
	return mutate.AppendManifests(all, mutate.IndexAddendum{
		Add:        image,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: p.os, Architecture: p.arch}},
	})
}

// imageLayout writes the images as an OCI layout, tagged with the version.
func (r *release) imageLayout(all v1.ImageIndex) error {
	dir := filepath.Join(r.work, "image.oci")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	tag := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.version})
	if err := path.AppendIndex(all, tag); err != nil {
		return err
	}
	return tarDirectory(r.file(fmt.Sprintf("metawire-%s-image.oci.tar", r.version)), r.epoch, dir)
}

// buildImage builds one and writes its archive, with the time of the commit
// instead of the build's.
func (r *release) buildImage(ctx context.Context, p platform) (v1.Image, error) {
	built := r.built("image.tar", p)
	cmd := exec.CommandContext(ctx, "go", "run", "github.com/metawire/metawire/tests/image",
		"-repository", imageName, "-version", r.version, "-arch", p.arch, "-o", built)
	if _, err := outputOf(cmd); err != nil {
		return nil, err
	}
	image, err := tarball.ImageFromPath(built, nil)
	if err != nil {
		return nil, err
	}
	if image, err = settled(image, p, r.epoch); err != nil {
		return nil, err
	}
	tag, err := name.NewTag(imageName + ":" + r.version)
	if err != nil {
		return nil, err
	}
	return image, tarball.WriteToFile(r.file(fmt.Sprintf("metawire-%s-image-%s.tar", r.version, p)), tag, image)
}

// settled is the image without what differs from build to build and from engine
// to engine. One for another platform is an error.
func settled(image v1.Image, p platform, epoch time.Time) (v1.Image, error) {
	image, err := mutate.Time(image, epoch, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	if config.OS != p.os || config.Architecture != p.arch {
		return nil, fmt.Errorf("the engine has built for %s/%s", config.OS, config.Architecture)
	}
	if len(config.RootFS.DiffIDs) == 0 {
		return nil, errors.New("the engine has built an image without a layer")
	}
	config = config.DeepCopy()
	config.Config.Labels, config.Config.Hostname = nil, ""
	config.History = nil // it tells of the engine
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON), nil
}
