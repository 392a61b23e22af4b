// Command schema makes a chart's values.schema.json: the keys, descriptions and
// types of its values.yaml, where every value has a `# -- ` comment, with the
// constraints of a file beside it. It refuses a value without a comment and a
// constraint of no value.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func main() {
	values := flag.String("values", "values.yaml", "the chart's values")
	constraints := flag.String("constraints", "constraints.yaml", "what they may be")
	out := flag.String("o", "values.schema.json", "the schema")
	flag.Parse()
	if err := run(*values, *constraints, *out); err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

func run(valuesFile, constraintsFile, out string) error {
	values, err := os.ReadFile(valuesFile)
	if err != nil {
		return err
	}
	constraints, err := os.ReadFile(constraintsFile)
	if err != nil {
		return err
	}
	schema, err := generate(values, constraints)
	if err != nil {
		return err
	}
	return os.WriteFile(out, schema, 0o644)
}

// object is a JSON schema, or a part of one.
type object = map[string]any

// A generator turns values into schemas.
type generator struct {
	Definitions object            `yaml:"definitions"`
	Values      map[string]object `yaml:"values"` // by key, such as image.tag
	Whole       object            `yaml:"whole"`

	errs []error
}

// generate returns the schema. The error names every value that has no comment
// and every constraint that is of none.
func generate(values, constraints []byte) ([]byte, error) {
	var g generator
	d := yaml.NewDecoder(bytes.NewReader(constraints))
	d.KnownFields(true)
	if err := d.Decode(&g); err != nil {
		return nil, fmt.Errorf("constraints: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(values, &doc); err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("values: empty")
	}
	schema := g.section("", doc.Content[0])
	for _, key := range slices.Sorted(maps.Keys(g.Values)) {
		g.errs = append(g.errs, fmt.Errorf("constraints: %s is no value", key))
	}
	if err := errors.Join(g.errs...); err != nil {
		return nil, err
	}
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	schema["definitions"] = g.Definitions
	maps.Copy(schema, g.Whole)
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(schema)
	return text.Bytes(), err
}

// section is the schema of a map whose keys are values or sections.
func (g *generator) section(prefix string, n *yaml.Node) object {
	properties, required := object{}, []string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + name.Value
		description, documented := describe(name.HeadComment)
		var schema object
		switch {
		case documented:
			schema = g.value(value)
			schema["description"] = description
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			schema = g.section(key+".", value)
		default:
			g.errs = append(g.errs, fmt.Errorf("values: %s (line %d) has no `# -- ` comment", key, name.Line))
			continue
		}
		if isRequired(value, documented) {
			required = append(required, name.Value)
		}
		if documented && g.Values[key]["description"] != nil {
			g.errs = append(g.errs, fmt.Errorf("constraints: %s has a description, which belongs to values.yaml", key))
		}
		constrain(schema, g.Values[key])
		delete(g.Values, key)
		properties[name.Value] = schema
	}
	schema := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

// value is the schema of a value by its default alone.
func (g *generator) value(n *yaml.Node) object {
	t, ok := map[string]string{"!!map": "object", "!!seq": "array", "!!str": "string", "!!bool": "boolean", "!!int": "integer", "!!float": "number"}[n.Tag]
	if !ok {
		g.errs = append(g.errs, fmt.Errorf("values: line %d: the type of %q is not known", n.Line, n.Value))
	}
	return object{"type": t}
}

// constrain lays a constraint over what a default says. One that refers to
// others says the type itself.
func constrain(schema, constraint object) {
	for _, key := range []string{"$ref", "allOf", "anyOf", "oneOf"} {
		if constraint[key] != nil {
			delete(schema, "type")
		}
	}
	maps.Copy(schema, constraint)
}

// isRequired reports whether null, which takes a value away, leaves something
// undefined: a section, or a default that says something. What is empty by
// default may be null as well.
func isRequired(n *yaml.Node, documented bool) bool {
	return !documented || n.Kind == yaml.ScalarNode && n.Value != ""
}

// describe returns what the comment in front of a key says of it, and whether it
// is such a comment.
func describe(comment string) (string, bool) {
	_, text, found := strings.Cut("\n"+comment, "\n# -- ")
	if !found {
		return "", false
	}
	var words []string
	for line := range strings.SplitSeq(text, "\n") {
		words = append(words, strings.Fields(strings.TrimPrefix(line, "#"))...)
	}
	return strings.Join(words, " "), true
}
