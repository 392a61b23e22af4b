package release

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Image names an image in an archive.
type Image struct {
	Repository, Tag string
	// ID is the digest of its configuration: another for other content.
	ID string
}

// ImageIn reads which image a docker-archive holds.
func ImageIn(archive string) (Image, error) {
	f, err := os.Open(archive)
	if err != nil {
		return Image{}, fmt.Errorf("image archive (make image writes it): %w", err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return Image{}, fmt.Errorf("%s: no manifest.json, so it is no docker-archive", archive)
		}
		if err != nil {
			return Image{}, fmt.Errorf("read %s: %w", archive, err)
		}
		if header.Name != "manifest.json" {
			continue
		}
		var images []struct {
			Config   string
			RepoTags []string
		}
		if err := json.NewDecoder(r).Decode(&images); err != nil {
			return Image{}, fmt.Errorf("%s: manifest.json: %w", archive, err)
		}
		if len(images) != 1 || len(images[0].RepoTags) != 1 {
			return Image{}, fmt.Errorf("%s: want one image with one tag, manifest.json has %+v", archive, images)
		}
		return parseImage(images[0].RepoTags[0], strings.TrimSuffix(images[0].Config, ".json"))
	}
}

// parseImage splits a name with a tag; a colon before a slash is a port's.
func parseImage(name, id string) (Image, error) {
	colon := strings.LastIndexByte(name, ':')
	if colon <= strings.LastIndexByte(name, '/') {
		return Image{}, fmt.Errorf("image %q has no tag", name)
	}
	return Image{Repository: name[:colon], Tag: name[colon+1:], ID: id}, nil
}

// ParseImage reads a name of the form [REGISTRY/]NAME:TAG.
func ParseImage(name string) (Image, error) { return parseImage(name, "") }

// Values are the chart's values for the image, which is pulled as policy says:
// Always, IfNotPresent or Never.
func (i Image) Values(policy string) map[string]any {
	return map[string]any{"repository": i.Repository, "tag": i.Tag, "pullPolicy": policy}
}

func (i Image) String() string { return i.Repository + ":" + i.Tag }
