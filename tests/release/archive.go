package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sumsFile has the checksums of all other files.
const sumsFile = "SHA256SUMS"

// entry is a file in an archive.
type entry struct {
	name string // with slashes
	mode int64
	data []byte
}

// writeTar writes the entries, sorted, all of one time and nobody's. A name that
// ends with gz gets it compressed.
func writeTar(name string, epoch time.Time, entries []entry) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var out io.Writer = f
	if ext := filepath.Ext(name); ext == ".gz" || ext == ".tgz" {
		zip := gzip.NewWriter(f) // its header has no time
		defer func() { err = errors.Join(err, zip.Close()) }()
		out = zip
	}
	w := tar.NewWriter(out)
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), ModTime: epoch, Format: tar.FormatPAX}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := w.Write(e.data); err != nil {
			return err
		}
	}
	return w.Close()
}

// readTar reads the files of an archive, which is compressed.
func readTar(name string) (entries []entry, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for r := tar.NewReader(zip); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, header.Name, err)
		}
		entries = append(entries, entry{header.Name, header.Mode, data})
	}
}

// tarDirectory writes the files below a directory, those who made it
// temporarily left out.
func tarDirectory(name string, epoch time.Time, dir string) error {
	var entries []entry
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, p)
		entries = append(entries, entry{path.Clean(filepath.ToSlash(relative)), 0o644, data})
		return err
	})
	if err != nil {
		return err
	}
	return writeTar(name, epoch, entries)
}

// checksums are as sha256sum -c reads them.
func checksums(_ context.Context, r *release) error {
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, f := range files { // sorted by name
		data, err := os.ReadFile(r.file(f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), f.Name())
	}
	return os.WriteFile(r.file(sumsFile), []byte(sums.String()), 0o644)
}
