// Package configuration reads Falco's configuration as Falco 0.41 and later do,
// as far as plugins and the web server go. It was written from Falco's source,
// and shares no code with the init container that it is tested with.
package configuration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Configuration is what Falco makes of its files and options.
type Configuration struct {
	Plugins    []Plugin // that it loads, in their order
	ListenPort int      // of the web server; default 8765
}

// Plugin is one that is loaded.
type Plugin struct {
	Name    string
	Library string // an absolute path
	Init    any    // as of JSON
}

// Source is where Falco runs.
type Source struct {
	Root string // before every path; for tests
	Env  func(string) string
}

// Read reads what Falco's command line says. What makes Falco exit is an error.
func (s Source) Read(args []string) (*Configuration, error) {
	file, options, err := parse(args)
	if err != nil {
		return nil, err
	}
	root, err := s.load(file)
	if err != nil {
		return nil, err
	}
	if root.Kind == yaml.ScalarNode && !isNull(root) {
		return nil, fmt.Errorf("%s: is a scalar", file)
	}
	if root.Kind != yaml.MappingNode {
		root = &yaml.Node{Kind: yaml.MappingNode}
	}
	// Those of files count before the files are merged, and all of them after.
	for _, o := range options {
		if strings.HasPrefix(o, "config_files") {
			if err := set(root, o); err != nil {
				return nil, err
			}
		}
	}
	if err := s.include(root, file); err != nil {
		return nil, err
	}
	for _, o := range options {
		if err := set(root, o); err != nil {
			return nil, err
		}
	}
	return interpret(root)
}

// parse reads what matters of the command line, as cxxopts does: the value of an
// option is the rest of its letter's argument, what follows =, or the next one.
func parse(args []string) (file string, options []string, err error) {
	file = "/etc/falco/falco.yaml"
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			break
		}
		var value string
		var has bool
		option := ""
		switch {
		case strings.HasPrefix(arg, "--"):
			arg, value, has = strings.Cut(arg, "=")
			option = map[string]string{"--config": "c", "--option": "o"}[arg]
		case strings.HasPrefix(arg, "-"):
			rest := strings.TrimLeft(arg[1:], "AbdEhiLlUuv")
			if rest != "" && strings.ContainsAny(rest[:1], "co") {
				option, value, has = rest[:1], rest[1:], len(rest) > 1
			}
		}
		if option == "" {
			continue
		}
		if !has {
			if i++; i == len(args) {
				return "", nil, fmt.Errorf("option %s is missing an argument", arg)
			}
			value = args[i]
		}
		if option == "c" {
			file = value
		} else {
			options = append(options, value)
		}
	}
	return file, options, nil
}

// interpret finds the plugins and the web server's port.
func interpret(root *yaml.Node) (*Configuration, error) {
	c := &Configuration{ListenPort: 8765}
	if port := get(get(root, "webserver"), "listen_port"); port != nil {
		if n, err := strconv.Atoi(port.Value); err == nil {
			c.ListenPort = n
		}
	}
	var configured []Plugin
	for _, n := range sequence(get(root, "plugins")) {
		p, err := pluginOf(n)
		if err != nil {
			return nil, fmt.Errorf("could not load plugins config: %w", err)
		}
		configured = append(configured, p)
	}
	load := get(root, "load_plugins")
	if load == nil {
		c.Plugins = configured
	}
	for _, n := range sequence(load) {
		name, err := text(n)
		i := slices.IndexFunc(configured, func(p Plugin) bool { return p.Name == name })
		if err != nil || i < 0 {
			return nil, fmt.Errorf("cannot load plugin %q: plugin config not found for given name", name)
		}
		c.Plugins = append(c.Plugins, configured[i])
	}
	// A plugin is registered under the name that its library tells.
	var names []string
	for _, p := range c.Plugins {
		name := p.Name
		if strings.Contains(p.Library, "k8smeta") {
			name = "k8smeta"
		}
		if slices.Contains(names, name) {
			return nil, fmt.Errorf("cannot register plugin: found another plugin with name %s. Aborting", name)
		}
		names = append(names, name)
	}
	return c, nil
}

// pluginOf reads an entry of plugins.
func pluginOf(n *yaml.Node) (p Plugin, err error) {
	if n.Kind != yaml.MappingNode || get(n, "name") == nil || get(n, "library_path") == nil {
		return p, fmt.Errorf("an entry is no map with a name and a library_path")
	}
	if p.Name, err = text(get(n, "name")); err != nil {
		return p, err
	}
	if p.Library, err = text(get(n, "library_path")); err != nil {
		return p, err
	}
	if !filepath.IsAbs(p.Library) {
		p.Library = filepath.Join("/usr/share/falco/plugins", p.Library)
	}
	switch config := get(n, "init_config"); {
	case config == nil || isNull(config):
	case config.Kind == yaml.SequenceNode:
		return p, fmt.Errorf("init_config of %s is a list", p.Name)
	default:
		p.Init = toJSON(config, 0)
	}
	return p, nil
}

// text is a scalar's; null is one too.
func text(n *yaml.Node) (string, error) {
	switch {
	case isNull(n):
		return "null", nil
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	}
	return "", fmt.Errorf("line %d: a list or map stands where a text belongs", n.Line)
}

// toJSON gives scalars the type that they look like: Falco does so even where
// they are quoted. What holds itself ends somewhere here.
func toJSON(n *yaml.Node, depth int) any {
	if depth++; depth > 50 {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = toJSON(target(n.Content[i+1]), depth)
		}
		return out
	case yaml.SequenceNode:
		var out []any
		for _, e := range n.Content {
			out = append(out, toJSON(target(e), depth))
		}
		return out
	}
	if isNull(n) {
		return nil
	}
	if number, err := strconv.ParseFloat(n.Value, 64); err == nil && strings.ContainsAny(n.Value[:1], "+-.0123456789") {
		return number
	}
	switch strings.ToLower(n.Value) {
	case "y", "yes", "true", "on":
		return true
	case "n", "no", "false", "off":
		return false
	}
	return n.Value
}
