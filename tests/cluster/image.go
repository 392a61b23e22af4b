package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
)

const (
	// PauseImage is in every cluster of size Node. It does nothing until it
	// is told to end, which is all that a sample workload needs.
	PauseImage = "registry.k8s.io/pause:3.10.1"

	coreDNSImage = "registry.k8s.io/coredns/coredns:test"
)

// Image is a container image of a few files and nothing else.
type Image struct {
	Names           []string // complete, with a tag: registry.example/name:tag
	Entrypoint, Cmd []string
	Files           map[string][]byte // by path; all are executable
}

// Write writes the image as a docker-archive: no build tool and no registry is
// needed.
func (i Image) Write(archive string) error {
	var files []file
	for _, path := range slices.Sorted(maps.Keys(i.Files)) {
		files = append(files, file{strings.TrimPrefix(path, "/"), i.Files[path]})
	}
	layer, err := tarball(files...)
	if err != nil {
		return err
	}
	diffID := fmt.Sprintf("%x", sha256.Sum256(layer))
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": i.Entrypoint, "Cmd": i.Cmd, "WorkingDir": "/"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + diffID}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": configName, "RepoTags": i.Names, "Layers": []string{diffID + "/layer.tar"},
	}})
	if err != nil {
		return err
	}
	image, err := tarball(file{configName, config}, file{diffID + "/layer.tar", layer}, file{"manifest.json", manifest})
	if err != nil {
		return err
	}
	return os.WriteFile(archive, image, 0o644)
}

// programImage writes an image that runs one program.
func programImage(archive, name, program, path string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	return Image{Names: []string{name}, Entrypoint: []string{path}, Files: map[string][]byte{path: content}}.Write(archive)
}

type file struct {
	name    string
	content []byte
}

func tarball(files ...file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}
