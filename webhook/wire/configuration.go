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
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/metawire/metawire/internal/wiring"
)

// The keys of Falco's configuration that matter here.
const (
	keyPlugins     = "plugins"
	keyLoadPlugins = "load_plugins"
	keyConfigFiles = "config_files"
)

// configuration is what Falco will make of its files and options, as far as it
// decides whether and how the plugin is added.
type configuration struct {
	// configuredBy names the file or option that configures the plugin, loaded
	// or not; "" if none does.
	configuredBy string
	loadDefined  bool // load_plugins is there: only what it lists is loaded
	loadNamed    bool // and it lists the plugin
	// refusal says why a fragment would have no effect, or an evil one.
	refusal error
}

// joinable returns why a fragment cannot be added.
func (c configuration) joinable(v falcoVersion) error {
	if !v.optionFiles() {
		return fmt.Errorf("falco 0.%d merges no configuration file given by an option, and replaces lists: 0.41 or later is needed", v.minor)
	}
	return c.refusal
}

// reader merges configuration files as Falco does. Variables (${NAME}) are not
// expanded: what depends on one is not known here.
type reader struct {
	o        Options
	v        falcoVersion
	mainFile string
	root     map[string]*yaml.Node // of the merged configuration
	by       string                // the file that is merged now
	conf     configuration
}

// readConfiguration reads what Falco will read. An error is anything that Falco
// itself would refuse or that cannot be seen from here; then nothing is known.
func readConfiguration(o Options, c command, v falcoVersion) (configuration, error) {
	r := &reader{o: o, v: v, root: map[string]*yaml.Node{}, mainFile: path.Clean("/" + c.configFile)}
	if err := r.main(); err != nil {
		return configuration{}, err
	}
	included, err := r.included(c.options)
	if err != nil {
		return configuration{}, err
	}
	for _, entry := range included {
		if err := r.include(entry); err != nil {
			return configuration{}, err
		}
	}
	for _, key := range []string{keyPlugins, keyLoadPlugins} {
		if n := r.root[key]; n != nil && n.Kind != yaml.SequenceNode && !isNull(n) {
			r.conf.refusal = fmt.Errorf("%s is not a list, so nothing can be joined to it", key)
		}
	}
	r.conf.loadDefined = r.root[keyLoadPlugins] != nil
	r.conf.loadNamed = named(r.root[keyLoadPlugins])
	for _, option := range c.options {
		if err := r.option(option); err != nil {
			return configuration{}, err
		}
	}
	return r.conf, nil
}

// main reads the main file. Where nothing is mounted Falco reads the stock file
// of its image, which includes a directory, loads no plugin and configures none
// that matters. A file of another name, in an image, cannot be known.
func (r *reader) main() error {
	r.by = r.mainFile
	pairs, err := r.read(r.mainFile)
	if errors.Is(err, fs.ErrNotExist) {
		if r.mainFile != defaultConfigFile {
			return fmt.Errorf("%s is not on a volume, and what Falco's image has there is not known", r.mainFile)
		}
		r.root[keyLoadPlugins] = &yaml.Node{Kind: yaml.SequenceNode}
		r.root[keyConfigFiles] = sequence(scalar("/etc/falco/config.d"))
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if r.root[p.key] == nil { // of a key that stands twice Falco takes the first
			r.root[p.key] = p.value
			r.note(p)
		}
	}
	return nil
}

// The strategies of an included file.
const (
	strategyAppend   = "append"
	strategyOverride = "override"
	strategyAddOnly  = "add-only"
)

// entry is one of config_files.
type entry struct{ path, strategy string }

// included lists config_files, with what options add to it.
func (r *reader) included(options []string) ([]entry, error) {
	if !r.v.includes() {
		return nil, nil
	}
	list := r.root[keyConfigFiles]
	if list != nil && list.Kind != yaml.SequenceNode {
		r.conf.refusal = fmt.Errorf("%s is not a list, so no file can be added to it", keyConfigFiles)
		list = sequence(list)
	}
	var nodes []*yaml.Node
	if list != nil {
		nodes = list.Content
	}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		switch {
		case rootKey(key) != keyConfigFiles || !r.v.optionFiles():
		case key == keyConfigFiles+"[]":
			n, err := optionValue(value)
			if err != nil {
				return nil, fmt.Errorf("option %s: %w", key, err)
			}
			nodes = append(slices.Clip(nodes), n)
		default:
			return nil, fmt.Errorf("option %s changes which files Falco reads", key)
		}
	}
	var all []entry
	for _, n := range nodes {
		e := entry{strategy: strategyAppend}
		if n = resolve(n); n.Kind == yaml.MappingNode {
			for _, p := range pairsOf(n) {
				switch p.key {
				case "path":
					e.path = p.value.Value
				case "strategy":
					e.strategy = p.value.Value
				}
			}
		} else {
			e.path = n.Value
		}
		if strings.Contains(e.path, "${") {
			return nil, fmt.Errorf("the entry %q of %s depends on a variable of Falco's container", e.path, keyConfigFiles)
		}
		if !r.v.strategies() {
			e.strategy = strategyOverride
		}
		if e.path != "" {
			all = append(all, e)
		}
	}
	return all, nil
}

// include merges a file, or the files of a directory in their order, not those
// of directories in it. Falco looks at no extension. What does not exist is
// skipped.
func (r *reader) include(e entry) error {
	name := path.Clean("/" + e.path)
	if name == r.mainFile {
		return fmt.Errorf("%s includes itself, which Falco refuses", name)
	}
	info, err := os.Stat(r.o.path(name))
	if errors.Is(err, fs.ErrNotExist) || name == wiring.FragmentFile {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return r.merge(name, e.strategy)
	}
	entries, err := os.ReadDir(r.o.path(name))
	if err != nil {
		return err
	}
	for _, d := range entries {
		file := path.Join(name, d.Name())
		// A ConfigMap's files are links, and so are its directories.
		if info, err := os.Stat(r.o.path(file)); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := r.merge(file, e.strategy); err != nil {
			return err
		}
	}
	return nil
}

// merge joins one included file.
func (r *reader) merge(file, strategy string) error {
	pairs, err := r.read(file)
	if err != nil {
		return err
	}
	r.by = file
	for _, p := range pairs {
		old := r.root[p.key]
		switch {
		case p.key == keyConfigFiles:
			return fmt.Errorf("%s includes further files, which Falco refuses", file)
		case strategy == strategyAddOnly && old != nil:
			continue
		case strategy == strategyOverride || strategy == strategyAddOnly || p.value.Kind != yaml.SequenceNode:
			r.root[p.key] = p.value
			if p.key == keyPlugins {
				r.conf.configuredBy = ""
			}
		case old == nil || isNull(old):
			r.root[p.key] = p.value
		case old.Kind != yaml.SequenceNode:
			return fmt.Errorf("%s joins a list to %s, which is none", file, p.key)
		default:
			r.root[p.key] = sequence(append(slices.Clip(old.Content), p.value.Content...)...)
		}
		r.note(p)
	}
	return nil
}

// note keeps where the plugin is configured.
func (r *reader) note(p pair) {
	if p.key == keyPlugins && configured(p.value) {
		r.conf.configuredBy = r.by
	}
}

// option applies what -o sets, which Falco does after all files.
func (r *reader) option(option string) error {
	key, value, _ := strings.Cut(option, "=")
	switch rootKey(key) {
	case keyPlugins:
		n, err := optionValue(value)
		if err != nil {
			return fmt.Errorf("option %s: %w", key, err)
		}
		if key == keyPlugins {
			r.conf.configuredBy = ""
			r.conf.refusal = fmt.Errorf("an option replaces %s", key)
		}
		if isPlugin(n) || tells(key[strings.LastIndex(key, ".")+1:], value) {
			r.conf.configuredBy = "an option of Falco's command line"
		}
	case keyLoadPlugins:
		if index, ok := strings.CutPrefix(key, keyLoadPlugins+"["); !ok || !r.keeps(strings.TrimSuffix(index, "]")) {
			r.conf.refusal = fmt.Errorf("an option replaces %s", keyLoadPlugins)
		}
		r.conf.loadDefined = true
		r.conf.loadNamed = r.conf.loadNamed || value == pluginName
	}
	return nil
}

// keeps says whether setting that element of load_plugins leaves what a fragment
// appends: the empty index is one more element.
func (r *reader) keeps(index string) bool {
	n, err := strconv.Atoi(index)
	list := r.root[keyLoadPlugins]
	return index == "" || err == nil && n >= 0 && list != nil && n < len(list.Content)
}

// maxConfiguration bounds a file: a ConfigMap holds 1 MiB.
const maxConfiguration = 4 << 20

// pair is a key of a file's root, and its value with aliases resolved.
type pair struct {
	key   string
	value *yaml.Node
}

// read returns the root of a file's first document, as Falco does.
func (r *reader) read(file string) ([]pair, error) {
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
	if doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: is not a mapping", file)
	}
	return pairsOf(doc.Content[0]), nil
}

// withoutRoot names the file as the pod does.
func withoutRoot(err error, file string) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return fmt.Errorf("%s: %w", filepath.ToSlash(file), err)
}
