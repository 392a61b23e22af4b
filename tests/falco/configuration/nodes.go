package configuration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// load reads a file's first document and expands the variables in it.
func (s Source) load(file string) (*yaml.Node, error) {
	content, err := os.ReadFile(filepath.Join(s.Root, file))
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, nil
	}
	root := target(doc.Content[0])
	s.expand(root, map[*yaml.Node]bool{})
	return root, nil
}

// expand replaces variables in scalars, not in keys.
func (s Source) expand(n *yaml.Node, seen map[*yaml.Node]bool) {
	if n = target(n); seen[n] || isNull(n) {
		return
	}
	seen[n] = true
	switch n.Kind {
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			s.expand(n.Content[i], seen)
		}
	case yaml.SequenceNode:
		for _, e := range n.Content {
			s.expand(e, seen)
		}
	default:
		n.Value, n.Tag = s.expanded(n.Value), "!!str"
	}
}

func (s Source) expanded(value string) string {
	for at := strings.Index(value, "$"); at >= 0; {
		rest := value[at:]
		end := strings.Index(rest, "}")
		switch {
		case strings.HasPrefix(rest, "${") && end > 0:
			value = value[:at] + s.Env(rest[2:end]) + rest[end+1:] // what it gave is looked at again
		case strings.HasPrefix(rest, "$${") && end > 0:
			value = value[:at] + rest[1:]
			at++
		default:
			return value
		}
		next := strings.Index(value[at:], "$")
		if next < 0 {
			break
		}
		at += next
	}
	return value
}

// include merges config_files into root.
func (s Source) include(root *yaml.Node, mainFile string) error {
	for _, e := range sequence(get(root, "config_files")) {
		name, strategy := e, "append"
		if e.Kind == yaml.MappingNode {
			name = get(e, "path")
			if n := get(e, "strategy"); n != nil {
				strategy = n.Value
			}
		}
		if name == nil || name.Kind != yaml.ScalarNode {
			return errors.New("config_files: an entry has no path")
		}
		if name.Value == mainFile {
			return fmt.Errorf("config_files: tried to include the main file %s", mainFile)
		}
		files, err := s.filesOf(name.Value)
		if err != nil {
			return err
		}
		for _, f := range files {
			more, err := s.load(f)
			if err != nil {
				return err
			}
			if err := merge(root, more, strategy); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
		}
	}
	return nil
}

// filesOf returns a file, or those of a directory in lexical order; nothing for
// what does not exist.
func (s Source) filesOf(name string) ([]string, error) {
	info, err := os.Stat(filepath.Join(s.Root, name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		return nil, nil
	}
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(filepath.Join(s.Root, name))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		file := filepath.Join(name, e.Name())
		info, err := os.Stat(filepath.Join(s.Root, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && info.Mode().IsRegular() {
			files = append(files, file)
		}
	}
	return files, nil
}

// merge joins an included file. What is a scalar is passed over.
func merge(root, more *yaml.Node, strategy string) error {
	if more.Kind == yaml.SequenceNode && len(more.Content) > 0 {
		return errors.New("is a list")
	}
	if more.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(more.Content); i += 2 {
		key, value := target(more.Content[i]).Value, target(more.Content[i+1])
		old := get(root, key)
		switch {
		case key == "config_files":
			return errors.New("has config_files too")
		case strategy == "add-only":
			if old == nil {
				put(root, key, value)
			}
		case strategy == "override" || value.Kind != yaml.SequenceNode:
			put(root, key, value)
		default:
			for _, item := range value.Content { // of an empty list nothing is made
				list, err := pushable(root, key)
				if err != nil {
					return err
				}
				list.Content = append(list.Content, target(item))
			}
		}
	}
	return nil
}

// pushable is the list under a key, made if there is nothing.
func pushable(root *yaml.Node, key string) (*yaml.Node, error) {
	n := get(root, key)
	if n == nil {
		n = &yaml.Node{Kind: yaml.SequenceNode}
		put(root, key, n)
	}
	if isNull(n) {
		*n = yaml.Node{Kind: yaml.SequenceNode}
	}
	if n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s is no list: bad push_back", key)
	}
	return n, nil
}

// set applies -o KEY=VALUE. Variables stay as they are.
func set(root *yaml.Node, option string) error {
	key, text, ok := strings.Cut(option, "=")
	if !ok {
		return fmt.Errorf("option %q is not of the form key=val", option)
	}
	value := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}") {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			return fmt.Errorf("option %s: %w", key, err)
		}
		value = target(doc.Content[0])
	}
	at := root
	for step := range strings.SplitSeq(key, ".") {
		name, index, indexed := strings.Cut(step, "[")
		if name == "" || at.Kind != yaml.MappingNode && !isNull(at) {
			return fmt.Errorf("option %s: nothing can be set there", key)
		}
		next := get(at, name)
		if indexed && strings.TrimSuffix(index, "]") == "" {
			if next != nil && next.Kind != yaml.SequenceNode {
				return fmt.Errorf("option %s: expected a numeric index, found ''", key)
			}
			list, err := pushable(at, name)
			if err != nil {
				return err
			}
			next = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
			list.Content = append(list.Content, next)
		} else if indexed {
			i, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
			if err != nil || next == nil || i < 0 || i >= len(next.Content) || next.Kind != yaml.SequenceNode {
				return fmt.Errorf("option %s: there is no such element", key)
			}
			next = target(next.Content[i])
		} else if next == nil {
			next = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
			put(at, name, next)
		}
		at = next
	}
	*at = *value
	return nil
}

// target is what an alias stands for: the very node, so that what is added to
// one is in the other too.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// get is the first value of a key, nil if there is none.
func get(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := target(n.Content[i]); k.Kind == yaml.ScalarNode && k.Value == key {
			return target(n.Content[i+1])
		}
	}
	return nil
}

func put(n *yaml.Node, key string, value *yaml.Node) {
	if isNull(n) {
		*n = yaml.Node{Kind: yaml.MappingNode}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if target(n.Content[i]).Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
}

// sequence lists the elements; a scalar is its only one, and a map or null none.
func sequence(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil || isNull(n):
		return nil
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	case n.Kind != yaml.SequenceNode:
		return nil
	}
	all := make([]*yaml.Node, len(n.Content))
	for i, e := range n.Content {
		all[i] = target(e)
	}
	return all
}
