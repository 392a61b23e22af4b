package wire

import (
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func scalar(value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: value} }

func sequence(of ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Content: of}
}

// resolve follows an alias; YAML has none of an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// pairsOf lists a mapping's keys in their order; what is no mapping has none.
func pairsOf(n *yaml.Node) []pair {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	var all []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		all = append(all, pair{key: resolve(n.Content[i]).Value, value: resolve(n.Content[i+1])})
	}
	return all
}

// elements of a list. What is no list is its only element, as for Falco.
func elements(list *yaml.Node) []*yaml.Node {
	if list == nil {
		return nil
	}
	if list.Kind != yaml.SequenceNode {
		return []*yaml.Node{list}
	}
	all := make([]*yaml.Node, len(list.Content))
	for i, n := range list.Content {
		all[i] = resolve(n)
	}
	return all
}

// named says whether a list of names has the plugin's.
func named(list *yaml.Node) bool {
	return slices.ContainsFunc(elements(list), func(n *yaml.Node) bool { return n.Value == pluginName })
}

// configured says whether a list of plugins has the plugin.
func configured(list *yaml.Node) bool { return slices.ContainsFunc(elements(list), isPlugin) }

// isPlugin says whether an element of plugins is the plugin, by its name or its
// library.
func isPlugin(n *yaml.Node) bool {
	return slices.ContainsFunc(pairsOf(n), func(p pair) bool { return tells(p.key, p.value.Value) })
}

// tells says whether a plugin's key and value mean ours. A name that depends on
// a variable may: a plugin that is there twice ends Falco.
func tells(key, value string) bool {
	switch key {
	case "name":
		return value == pluginName || strings.Contains(value, "${")
	case "library_path":
		return path.Base(value) == libraryName
	}
	return false
}

// rootKey is the first part of an option's key, such as plugins of
// plugins[0].name.
func rootKey(key string) string {
	if i := strings.IndexAny(key, ".["); i >= 0 {
		return key[:i]
	}
	return key
}

// optionValue reads what an option sets: an object in braces, else a text.
func optionValue(value string) (*yaml.Node, error) {
	if !strings.HasPrefix(value, "{") || !strings.HasSuffix(value, "}") {
		return scalar(value), nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return scalar(""), nil
	}
	return resolve(doc.Content[0]), nil
}
