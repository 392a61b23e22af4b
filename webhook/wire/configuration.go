package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

// configuration is what Falco will make of its files and options, as far as it
// decides whether and how the plugin is added.
type configuration struct {
	// configuredBy names the file or option that configures the plugin; "" if
	// none does.
	configuredBy string
	loaded       bool // what is configured is loaded too
	loadDefined  bool // load_plugins is there: only what it lists is loaded
	loadNamed    bool // and it lists the plugin
}

// reader merges configuration files as Falco 0.41 and later do. Variables
// (${NAME}) are not expanded: what depends on one is not known here.
type reader struct {
	o        Options
	task     wiring.Task
	mainFile string
	root     map[string]*yaml.Node // of the merged configuration
	from     map[*yaml.Node]string // which file or option has an entry of plugins
}

// readConfiguration reads what Falco will read. An error is anything that Falco
// itself would refuse, that cannot be seen from here, or to which nothing can be
// added; then nothing is known.
func readConfiguration(o Options, task wiring.Task) (configuration, error) {
	command := falco.ParseCommand(task.Command)
	r := &reader{
		o: o, task: task, mainFile: falco.Absolute(task.WorkingDir, command.ConfigFile),
		root: map[string]*yaml.Node{}, from: map[*yaml.Node]string{},
	}
	if err := r.main(); err != nil {
		return configuration{}, err
	}
	included, err := r.included(command.Options)
	if err != nil {
		return configuration{}, err
	}
	for _, e := range included {
		if err := r.include(e); err != nil {
			return configuration{}, err
		}
	}
	for _, option := range command.Options {
		if err := r.option(option); err != nil {
			return configuration{}, err
		}
	}
	return r.conclude()
}

// main reads the main file, of which nothing is known where it is the image's,
// but for the stock one: that includes a directory and loads no plugin.
func (r *reader) main() error {
	switch r.place(r.mainFile) {
	case hidden:
		return errHidden(r.mainFile)
	case image:
		if r.mainFile != falco.DefaultConfigFile {
			return errImage(r.mainFile)
		}
		r.root[falco.KeyLoadPlugins] = sequence()
		r.root[falco.KeyConfigFiles] = sequence(scalar(stockDir))
		return nil
	}
	pairs, err := r.read(r.mainFile, true)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if r.root[p.key] == nil { // of a key that stands twice Falco takes the first
			r.set(r.mainFile, p)
		}
	}
	return nil
}

// The strategies of an included file; any other text is append.
const (
	strategyOverride = "override"
	strategyAddOnly  = "add-only"
)

// entry is one of config_files.
type entry struct{ path, strategy string }

// included lists config_files, with what options add to it.
func (r *reader) included(options []falco.Option) ([]entry, error) {
	list := r.root[falco.KeyConfigFiles]
	if list != nil && list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s is not a list, so Falco refuses the file that the webhook adds to it: annotate the pod %s: \"false\", or make it a list", falco.KeyConfigFiles, wiring.InjectAnnotation)
	}
	nodes := elements(list)
	for _, o := range options {
		if !strings.HasPrefix(o.Key, falco.KeyConfigFiles) {
			continue
		}
		if o.Key != falco.KeyConfigFiles+"[]" {
			return nil, fmt.Errorf("option %s changes which files Falco reads", o.Key)
		}
		n, err := optionValue(o.Value)
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", o.Key, err)
		}
		nodes = append(nodes, n)
	}
	var all []entry
	for _, n := range nodes {
		e := entry{path: n.Value}
		for _, p := range pairsOf(n) {
			switch p.key {
			case "path":
				e.path = p.value.Value
			case "strategy":
				e.strategy = p.value.Value
			}
		}
		switch {
		case e.path == "":
			return nil, fmt.Errorf("an entry of %s has no path", falco.KeyConfigFiles)
		case isVariable(e.path), isVariable(e.strategy):
			return nil, fmt.Errorf("the entry %q of %s depends on a variable of Falco's container", e.path, falco.KeyConfigFiles)
		}
		all = append(all, e)
	}
	return all, nil
}

// merge joins one included file.
func (r *reader) merge(file, strategy string, pairs []pair) error {
	for _, p := range pairs {
		old := r.root[p.key]
		switch {
		case p.key == falco.KeyConfigFiles:
			return fmt.Errorf("%s includes further files, which Falco refuses", file)
		case strategy == strategyAddOnly:
			if old == nil {
				r.set(file, p)
			}
		case strategy == strategyOverride || p.value.Kind != yaml.SequenceNode:
			r.set(file, p)
		case len(p.value.Content) > 0: // Falco makes a list with its first element
			if err := r.join(file, p.key, p.value.Content...); err != nil {
				return err
			}
		}
	}
	return nil
}

// set makes a value the one of its key.
func (r *reader) set(by string, p pair) {
	r.root[p.key] = p.value
	r.note(by, p.key, p.value)
}

// join adds elements to a list, which is made if there is none.
func (r *reader) join(by, key string, added ...*yaml.Node) error {
	old := r.root[key]
	if old != nil && !isNull(old) && old.Kind != yaml.SequenceNode {
		return fmt.Errorf("%s adds to %s, which is not a list", by, key)
	}
	list := sequence(added...)
	r.note(by, key, list)
	if old != nil {
		list.Content = slices.Concat(old.Content, added)
	}
	r.root[key] = list
	return nil
}

// note keeps where entries of plugins come from.
func (r *reader) note(by, key string, list *yaml.Node) {
	if key == falco.KeyPlugins {
		for _, n := range elements(list) {
			r.from[n] = by
		}
	}
}

// byOption is where an entry comes from that no file has.
const byOption = "an option of Falco's command line"

// option applies what -o sets, which Falco does after all files.
func (r *reader) option(o falco.Option) error {
	key := o.Root()
	if key != falco.KeyPlugins && key != falco.KeyLoadPlugins {
		return nil
	}
	if !o.Appends() {
		return fmt.Errorf("option %s changes %s other than by one more element", o.Key, key)
	}
	if old := r.root[key]; old != nil && isNull(old) {
		return fmt.Errorf("option %s adds to %s, which is not a list", o.Key, key)
	}
	n, err := optionValue(o.Value)
	if err != nil {
		return fmt.Errorf("option %s: %w", o.Key, err)
	}
	return r.join(byOption, key, n)
}

// conclude looks for the plugin in what was merged.
func (r *reader) conclude() (configuration, error) {
	load := r.root[falco.KeyLoadPlugins]
	c := configuration{loadDefined: load != nil, loadNamed: named(load, pluginName)}
	var unknown error
	for _, n := range elements(r.root[falco.KeyPlugins]) {
		switch is, name, err := identify(n); {
		case is:
			c.configuredBy, c.loaded = r.from[n], !c.loadDefined || named(load, name)
			if c.loadDefined && (isVariable(name) || !c.loaded && slices.ContainsFunc(elements(load), onVariable)) {
				return configuration{}, fmt.Errorf("whether plugin %s of %s is loaded depends on a variable of Falco's container", pluginName, c.configuredBy)
			}
			return c, nil
		case err != nil && unknown == nil:
			unknown = fmt.Errorf("%s: %w", r.from[n], err)
		}
	}
	if unknown != nil {
		return configuration{}, unknown
	}
	for _, key := range []string{falco.KeyPlugins, falco.KeyLoadPlugins} {
		switch n := r.root[key]; {
		case n == nil || isNull(n):
		case n.Kind != yaml.SequenceNode:
			return configuration{}, fmt.Errorf("%s is not a list, so nothing can be joined to it", key)
		case n.Anchor != "":
			return configuration{}, fmt.Errorf("%s has an anchor, and what is joined to it is joined to its aliases too", key)
		}
	}
	return c, nil
}

// errHidden and errImage say why a file is not known.
func errHidden(file string) error {
	return fmt.Errorf("%s is on a volume that Falco's container alone mounts", file)
}

func errImage(file string) error {
	return fmt.Errorf("%s is not on a volume, and what Falco's image has there is not known", file)
}

// missing reports whether a file is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
