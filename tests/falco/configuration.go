package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// configuration is what the stand-in needs of Falco's.
type configuration struct {
	plugin     *k8smeta // nil if it is not loaded
	listenPort int      // of the web server
}

// k8smeta is the plugin's entry and its init_config.
type k8smeta struct {
	Hostname  string
	Port      int
	NodeName  *string
	CABundle  string
	library   string // what its file says
	Verbosity string
}

// configure reads Falco's configuration as its command line says.
func configure(args []string, env func(string) string) (*configuration, error) {
	file, options, err := parse(args)
	if err != nil {
		return nil, err
	}
	root, err := read(file)
	if err != nil {
		return nil, err
	}
	// Falco applies these before the files are merged.
	isFiles := func(o string) bool { return strings.HasPrefix(o, "config_files") }
	if err := apply(root, options, isFiles); err != nil {
		return nil, err
	}
	if err := include(root, file); err != nil {
		return nil, err
	}
	if err := apply(root, options, func(o string) bool { return !isFiles(o) }); err != nil {
		return nil, err
	}
	expanded, ok := expand(root, env).(map[string]any)
	if !ok {
		return nil, errors.New("the configuration is no map")
	}
	return interpret(expanded)
}

// parse reads what matters of the command line.
func parse(args []string) (file string, options []string, err error) {
	file = "/etc/falco/falco.yaml"
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch arg {
		case "-c", "-o":
			if len(args) == 0 {
				return "", nil, fmt.Errorf("option %s is missing an argument", arg)
			}
			if arg == "-c" {
				file = args[0]
			} else {
				options = append(options, args[0])
			}
			args = args[1:]
		}
	}
	return file, options, nil
}

func read(file string) (map[string]any, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	root := map[string]any{}
	if err := yaml.Unmarshal(content, &root); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if root == nil {
		root = map[string]any{}
	}
	return root, nil
}

// apply sets what -o key=value or -o key[]=value says.
func apply(root map[string]any, options []string, wanted func(string) bool) error {
	for _, o := range options {
		if !wanted(o) {
			continue
		}
		key, text, ok := strings.Cut(o, "=")
		if !ok {
			return fmt.Errorf("option -o %s is not key=value", o)
		}
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			return fmt.Errorf("option -o %s: %w", key, err)
		}
		into := root
		path := strings.Split(strings.TrimSuffix(key, "[]"), ".")
		for _, step := range path[:len(path)-1] {
			next, ok := into[step].(map[string]any)
			if !ok {
				next = map[string]any{}
				into[step] = next
			}
			into = next
		}
		last := path[len(path)-1]
		if strings.HasSuffix(key, "[]") {
			list, ok := into[last].([]any)
			if !ok && into[last] != nil {
				return fmt.Errorf("option -o %s: %s is not a list", key, last)
			}
			value = append(list, value)
		}
		into[last] = value
	}
	return nil
}

// include merges config_files into root.
func include(root map[string]any, mainFile string) error {
	list, _ := root["config_files"].([]any)
	for _, e := range list {
		name, strategy := "", "append"
		switch e := e.(type) {
		case string:
			name = e
		case map[string]any:
			name, _ = e["path"].(string)
			if s, ok := e["strategy"].(string); ok {
				strategy = s
			}
		}
		files, err := filesOf(name)
		if err != nil {
			return err
		}
		for _, f := range files {
			if f == mainFile {
				return fmt.Errorf("config_files: %s includes itself", f)
			}
			more, err := read(f)
			if err != nil {
				return err
			}
			if _, nested := more["config_files"]; nested {
				return fmt.Errorf("config_files: %s has config_files too", f)
			}
			merge(root, more, strategy)
		}
	}
	return nil
}

// filesOf returns a file, or those of a directory in lexical order; nothing for
// what does not exist.
func filesOf(name string) ([]string, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		file := filepath.Join(name, e.Name())
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			files = append(files, file)
		}
	}
	return files, nil
}

func merge(root, more map[string]any, strategy string) {
	for key, value := range more {
		old, there := root[key]
		oldList, isList := old.([]any)
		list, newIsList := value.([]any)
		switch {
		case strategy == "add-only" && there:
		case strategy == "append" && isList && newIsList:
			root[key] = slices.Concat(oldList, list)
		default:
			root[key] = value
		}
	}
}

var variable = regexp.MustCompile(`\$?\$\{([^}]*)\}`)

// expand replaces variables in scalars, and gives the result the type that it
// looks like: Falco does so even where the text is quoted.
func expand(v any, env func(string) string) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range maps.Keys(v) {
			v[k] = expand(v[k], env)
		}
	case []any:
		for i := range v {
			v[i] = expand(v[i], env)
		}
	case string:
		text := variable.ReplaceAllStringFunc(v, func(m string) string {
			if strings.HasPrefix(m, "$$") {
				return m[1:]
			}
			return env(m[2 : len(m)-1])
		})
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
		return text
	}
	return v
}

// interpret finds the plugin and the web server's port.
func interpret(root map[string]any) (*configuration, error) {
	c := &configuration{listenPort: 8765}
	if web, ok := root["webserver"].(map[string]any); ok {
		if port, ok := web["listen_port"].(float64); ok {
			c.listenPort = int(port)
		}
	}
	plugins, _ := root["plugins"].([]any)
	named := map[string]map[string]any{}
	for _, p := range plugins {
		entry, _ := p.(map[string]any)
		name, _ := entry["name"].(string)
		if named[name] != nil {
			return nil, fmt.Errorf("found another plugin with name %s", name)
		}
		named[name] = entry
	}
	entry := named["k8smeta"]
	if list, defined := root["load_plugins"]; defined {
		only, _ := list.([]any)
		if !slices.Contains(only, any("k8smeta")) {
			entry = nil
		}
		for _, name := range only {
			if name, ok := name.(string); !ok || named[name] == nil {
				return nil, fmt.Errorf("cannot load plugin %v: it is not configured", name)
			}
		}
	}
	if entry == nil {
		return c, nil
	}
	var err error
	c.plugin, err = pluginOf(entry)
	return c, err
}

// pluginOf reads the plugin's entry and opens its library.
func pluginOf(entry map[string]any) (*k8smeta, error) {
	p := &k8smeta{}
	library, _ := entry["library_path"].(string)
	if !filepath.IsAbs(library) {
		library = filepath.Join("/usr/share/falco/plugins", library)
	}
	content, err := os.ReadFile(library)
	if err != nil {
		return nil, fmt.Errorf("cannot load plugin k8smeta: %w", err)
	}
	if !bytes.HasPrefix(content, []byte("\x7fELF")) {
		return nil, fmt.Errorf("cannot load plugin k8smeta: %s: invalid ELF header", library)
	}
	p.library = string(bytes.Trim(content[min(64, len(content)):], "\x00"))
	config, _ := entry["init_config"].(map[string]any)
	for key, value := range config {
		text, isText := value.(string)
		number, isNumber := value.(float64)
		bad := fmt.Errorf("k8smeta: init_config.%s is of a wrong type: %v", key, value)
		switch key {
		case "collectorHostname":
			p.Hostname = text
		case "collectorPort":
			if !isNumber {
				return nil, bad
			}
			p.Port, isText = int(number), true
		case "nodeName":
			p.NodeName = &text
		case "caPEMBundle":
			p.CABundle = text
		case "verbosity":
			p.Verbosity = text
		default:
			return nil, fmt.Errorf("k8smeta: init_config has no %s", key)
		}
		if !isText {
			return nil, bad
		}
	}
	return p, nil
}

var whole = regexp.MustCompile(`^\$\{([^}]+)\}$`)

// nodeName is what the plugin sends: the variable's value if it is one, as a
// whole.
func (p *k8smeta) nodeName(env func(string) string) string {
	if p.NodeName == nil {
		return ""
	}
	if m := whole.FindStringSubmatch(*p.NodeName); m != nil {
		return env(m[1])
	}
	return *p.NodeName
}
