package chart_test

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// TestValuesAreDocumentedAndInTheSchema: each value has a comment that
// helm-docs takes, and the schema knows exactly these values, with a description
// and a type, and refuses others.
func TestValuesAreDocumentedAndInTheSchema(t *testing.T) {
	ch := loadChart(t)
	values := map[string]bool{}
	for key, name := range documented(t, ch) {
		values[key] = true
		if !strings.HasPrefix(name.HeadComment, "# -- ") {
			t.Errorf("values.yaml: %s (line %d) has no `# -- ` comment", key, name.Line)
		}
	}
	var schema map[string]any
	if err := json.Unmarshal(ch.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	walkSchema(t, schema, "", known)
	if d := cmp.Diff(slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(values))); d != "" {
		t.Errorf("values.schema.json and values.yaml have not the same keys (-schema +values):\n%s", d)
	}
}

// TestTemplatesReadDocumentedValues: no template reads a value that values.yaml
// does not have.
func TestTemplatesReadDocumentedValues(t *testing.T) {
	ch := loadChart(t)
	keys := allKeys(t, ch)
	reads := regexp.MustCompile(`\.Values((?:\.\w+)+)`)
	n := 0
	for _, f := range ch.Templates {
		for _, m := range reads.FindAllStringSubmatch(string(f.Data), -1) {
			n++
			if !slices.Contains(keys, m[1][1:]) {
				t.Errorf("%s reads %s, which values.yaml does not have", f.Name, m[0])
			}
		}
	}
	if n < 100 {
		t.Errorf("found only %d values in the templates", n)
	}
}

// TestValuesAreUsed: for each value there is a value set that renders otherwise
// without it; so no value is documented for nothing, and the tests of whole
// renderings reach every one.
func TestValuesAreUsed(t *testing.T) {
	ch := loadChart(t)
	used := map[string]bool{}
	others := map[string]string{ // that the API server of the tests does not admit
		"the nodes' network": "webhook: {hostNetwork: true}",
		"another namespace":  "namespaceOverride: other",
		"IPv6 first":         "ipFamilies: [IPv6, IPv4]",
	}
	for _, sets := range []map[string]string{valueSets, inventorySets, others} {
		for name, text := range sets {
			whole, err := render(ch, text)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, key := range allKeys(t, ch) {
				values, err := chartutil.ReadValues([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				path := strings.Split(key, ".")
				if used[key] || !takeAway(values, path) {
					continue
				}
				rest, err := values.YAML()
				if err != nil {
					t.Fatal(err)
				}
				without, err := render(ch, rest)
				used[key] = err != nil || !maps.Equal(whole, without)
			}
		}
	}
	for _, key := range allKeys(t, ch) {
		if !used[key] {
			t.Errorf("no value set renders otherwise without %s", key)
		}
	}
}

// takeAway deletes the value at the path and reports whether there was one.
func takeAway(values map[string]any, path []string) bool {
	for _, name := range path[:len(path)-1] {
		values, _ = values[name].(map[string]any)
	}
	last := path[len(path)-1]
	_, ok := values[last]
	delete(values, last)
	return ok
}

// TestNulls: each value, set to null, is as good as empty or refused by the
// schema, which names it; never an error within a template.
func TestNulls(t *testing.T) {
	ch := loadChart(t)
	taken := map[string]bool{}
	for _, key := range allKeys(t, ch) {
		values := key + ": null"
		if parts := strings.Split(key, "."); len(parts) > 1 {
			values = strings.Join(parts[:len(parts)-1], ": {") + ": {" + parts[len(parts)-1] + ": null" + strings.Repeat("}", len(parts)-1)
		}
		// As helm install does it, which Strict is not: a null takes the value away.
		files, err := renderAs(release, namespace, engine.Engine{}, ch, values)
		if err != nil {
			if name := key[strings.LastIndex(key, ".")+1:]; !strings.Contains(err.Error(), "schema") || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", values, err)
			}
			continue
		}
		taken[key] = true
		if _, err := objects(files); err != nil {
			t.Errorf("%s: %v", values, err)
		}
		for name, text := range files {
			if strings.Contains(text, "<no value>") || strings.Contains(text, "<nil>") {
				t.Errorf("%s: %s has no value somewhere:\n%s", values, name, text)
			}
		}
	}
	for _, key := range []string{
		"webhook.namespaceSelector", "webhook.podAnnotations", "webhook.podLabels", "collector.podAnnotations", "collector.podLabels",
		"collector.podSecurityContext", "collector.containerSecurityContext", "collector.livenessProbe", "monitoring.serviceMonitor.labels",
		"monitoring.prometheusRule.labels", "monitoring.prometheusRule.alertLabels", "monitoring.prometheusRule.disabled", "monitoring.dashboard.labels",
		"stream.pacing", "tls.certManager.issuerRef", "collector.resources", "imagePullSecrets", "extraObjects",
	} {
		if !taken[key] {
			t.Errorf("%s: null is refused", key)
		}
	}
}

// allKeys lists every value, and the sections that they are in.
func allKeys(t *testing.T, ch *helmchart.Chart) []string {
	t.Helper()
	keys := map[string]bool{}
	for key := range documented(t, ch) {
		for {
			keys[key] = true
			i := strings.LastIndex(key, ".")
			if i < 0 {
				break
			}
			key = key[:i]
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// documented returns the nodes of the names of all values that users set as one:
// a comment in front of a map documents the whole map.
func documented(t *testing.T, ch *helmchart.Chart) map[string]*yaml.Node {
	t.Helper()
	i := slices.IndexFunc(ch.Raw, func(f *helmchart.File) bool { return f.Name == "values.yaml" })
	var doc yaml.Node
	if err := yaml.Unmarshal(ch.Raw[i].Data, &doc); err != nil {
		t.Fatal(err)
	}
	names := map[string]*yaml.Node{}
	walkValues(doc.Content[0], "", names)
	return names
}

func walkValues(n *yaml.Node, prefix string, names map[string]*yaml.Node) {
	for i := 0; i < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 && name.HeadComment == "" {
			walkValues(value, prefix+name.Value+".", names)
			continue
		}
		names[prefix+name.Value] = name
	}
}

// walkSchema collects the keys of values, and requires that each has a
// description and a type, and that no section takes others.
func walkSchema(t *testing.T, schema map[string]any, prefix string, values map[string]bool) {
	t.Helper()
	properties, _ := schema["properties"].(map[string]any)
	if prefix != "global." && schema["additionalProperties"] != false { // an umbrella chart has there what it likes
		t.Errorf("values.schema.json: %q takes unknown keys", prefix)
	}
	for name, p := range properties {
		p, ok := p.(map[string]any)
		if !ok {
			t.Fatalf("values.schema.json: %s%s is not an object", prefix, name)
		}
		if p["description"] == nil {
			walkSchema(t, p, prefix+name+".", values)
			continue
		}
		if p["type"] == nil && p["$ref"] == nil {
			t.Errorf("values.schema.json: %s%s has no type", prefix, name)
		}
		values[prefix+name] = true
	}
}
