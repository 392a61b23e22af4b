package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// boms writes a bill of materials for every program of the release, as the
// program itself tells what it was built from: the command line, and those that
// are in the image.
func boms(ctx context.Context, r *release) error {
	var all []entry
	for _, p := range platforms() {
		programs := map[string]string{"metawire": r.built("metawire", p)}
		if p.os == "linux" {
			inImage, err := r.extract(p)
			if err != nil {
				return fmt.Errorf("programs of the image for %s: %w", p, err)
			}
			for _, program := range inImage {
				programs["image-"+filepath.Base(program)] = program
			}
		}
		for name, program := range programs {
			bom, err := output(ctx, r.sbom, "bin", "-json", "-std", "-noserial", "-notimestamp", "-version", "v"+r.version, program)
			if err != nil {
				return err
			}
			all = append(all, entry{fmt.Sprintf("%s-%s.cdx.json", name, p), 0o644, []byte(bom + "\n")})
		}
	}
	return writeTar(r.file(fmt.Sprintf("metawire-%s-sbom.tar.gz", r.version)), r.epoch, all)
}

// extract writes the files of an image, and returns where they are.
func (r *release) extract(p platform) (programs []string, err error) {
	image, err := tarball.ImageFromPath(r.built("image.tar", p), nil)
	if err != nil {
		return nil, err
	}
	files := mutate.Extract(image)
	defer files.Close()
	dir := filepath.Join(r.work, "image-"+p.String())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for t := tar.NewReader(files); ; {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return nil, err
		}
		program := filepath.Join(dir, path.Base(header.Name))
		if err := os.WriteFile(program, data, 0o755); err != nil {
			return nil, err
		}
		programs = append(programs, program)
	}
	if len(programs) == 0 {
		return nil, errors.New("there are none")
	}
	return programs, nil
}
