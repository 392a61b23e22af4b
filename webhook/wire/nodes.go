package wire

import (
	"fmt"
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

// named says whether a list of names has one.
func named(list *yaml.Node, name string) bool {
	return slices.ContainsFunc(elements(list), func(n *yaml.Node) bool { return n.Value == name })
}

// isVariable reports whether a text depends on a variable of Falco's container.
func isVariable(text string) bool { return strings.Contains(text, "${") }

func onVariable(n *yaml.Node) bool { return isVariable(n.Value) }

// identify says whether an entry of plugins is the plugin, by its name, its
// library or what it is told, and the entry's name. An error says that this
// depends on a variable: a plugin that is there twice ends Falco.
func identify(n *yaml.Node) (is bool, name string, err error) {
	for _, p := range pairsOf(n) {
		value := p.value.Value
		switch p.key {
		case "name":
			name = value
			is = is || value == pluginName
		case "library_path":
			is = is || strings.Contains(value, pluginName)
		case "init_config":
			is = is || strings.Contains(value, keyHostname) ||
				slices.ContainsFunc(pairsOf(p.value), func(p pair) bool { return p.key == keyHostname })
			continue
		default:
			continue
		}
		if isVariable(value) {
			err = fmt.Errorf("%s of a plugin depends on a variable of Falco's container, so it may be %s", p.key, pluginName)
		}
	}
	return is, name, err
}

// keyHostname is what the plugin alone is told.
const keyHostname = "collectorHostname"

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
