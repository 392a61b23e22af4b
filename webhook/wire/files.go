package wire

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

// The stock image's directory of included files, and the one that it has there:
// since 0.41 it configures and loads plugin container.
const (
	stockDir  = "/etc/falco/config.d"
	stockFile = stockDir + "/falco.container_plugin.yaml"
)

func stockPairs() []pair {
	name := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{scalar("name"), scalar("container")}}
	return []pair{{falco.KeyPlugins, sequence(name)}, {falco.KeyLoadPlugins, sequence(scalar("container"))}}
}

// place is where a file of Falco's is.
type place uint8

const (
	image  place = iota // in Falco's image: it is not seen from here
	seen                // on a volume that is mounted here too
	hidden              // on a volume that is not
)

// place finds the innermost mount of Falco's that a path is in.
func (r *reader) place(p string) place {
	where, depth := image, -1
	for w, mounts := range map[place][]string{seen: r.task.Mounts, hidden: r.task.Hidden} {
		for _, m := range mounts {
			if len(m) > depth && (p == m || m == "/" || strings.HasPrefix(p, m+"/")) {
				where, depth = w, len(m)
			}
		}
	}
	return where
}

// include merges a file, or those of a directory. Falco looks at no extension,
// and skips what does not exist.
func (r *reader) include(e entry) error {
	name := falco.Absolute(r.task.WorkingDir, e.path)
	for _, h := range r.task.Hidden {
		if path.Dir(h) == name {
			return errHidden(h)
		}
	}
	switch r.place(name) {
	case hidden:
		return errHidden(name)
	case image:
		switch name {
		case wiring.FragmentFile:
			return fmt.Errorf("%s is included besides the webhook's option, and what is in it would count twice", name)
		case stockDir:
			return r.directory(name, e.strategy)
		}
		return errImage(name)
	}
	info, err := os.Stat(r.o.path(name))
	switch {
	case missing(err):
		return nil
	case err != nil:
		return withoutRoot(err, name)
	case name == r.mainFile:
		return fmt.Errorf("%s includes itself, which Falco refuses", name)
	case info.IsDir():
		return r.directory(name, e.strategy)
	case !info.Mode().IsRegular():
		return nil
	}
	return r.file(name, e.strategy)
}

// directory merges the files of a directory in their order, not those of
// directories in it. A file that is mounted into the image's is beside the
// image's own.
func (r *reader) directory(dir, strategy string) error {
	entries, err := os.ReadDir(r.o.path(dir))
	if err != nil && !missing(err) {
		return withoutRoot(err, dir)
	}
	var files []string
	for _, d := range entries {
		files = append(files, path.Join(dir, d.Name()))
	}
	if r.place(dir) == image && !slices.Contains(files, stockFile) {
		files = append(files, stockFile)
		slices.Sort(files)
	}
	for _, file := range files {
		if r.place(file) == image { // the directory is
			if err := r.merge(file, strategy, stockPairs()); err != nil {
				return err
			}
			continue
		}
		// A ConfigMap's files are links, and so are its directories.
		info, err := os.Stat(r.o.path(file))
		if missing(err) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return withoutRoot(err, file)
		}
		if err := r.file(file, strategy); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) file(file, strategy string) error {
	pairs, err := r.read(file, false)
	if err != nil {
		return err
	}
	return r.merge(file, strategy, pairs)
}

// maxConfiguration bounds a file: a ConfigMap holds 1 MiB.
const maxConfiguration = 4 << 20

// pair is a key of a file's root, and its value with aliases resolved.
type pair struct {
	key   string
	value *yaml.Node
}

// read returns the root of a file's first document, as Falco does. An included
// file that is a text, and no mapping, is passed over; the main file is not.
func (r *reader) read(file string, main bool) ([]pair, error) {
	f, err := os.Open(r.o.path(file))
	if err != nil {
		return nil, withoutRoot(err, file)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxConfiguration+1))
	if err != nil {
		return nil, withoutRoot(err, file)
	}
	if len(content) > maxConfiguration {
		return nil, fmt.Errorf("%s: has over %d bytes", file, maxConfiguration)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode && (main || root.Kind != yaml.ScalarNode) {
		return nil, fmt.Errorf("%s: is not a mapping", file)
	}
	return pairsOf(root), nil
}

// withoutRoot names the file as the pod does.
func withoutRoot(err error, file string) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return fmt.Errorf("%s: %w", filepath.ToSlash(file), err)
}
