package chart_test

import (
	"encoding/json"
	"maps"
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
// helm-docs takes, and the schema knows exactly these values.
func TestValuesAreDocumentedAndInTheSchema(t *testing.T) {
	ch := loadChart(t)
	i := slices.IndexFunc(ch.Raw, func(f *helmchart.File) bool { return f.Name == "values.yaml" })
	var doc yaml.Node
	if err := yaml.Unmarshal(ch.Raw[i].Data, &doc); err != nil {
		t.Fatal(err)
	}
	values := map[string]bool{}
	walkValues(doc.Content[0], "", func(key string, name *yaml.Node) {
		values[key] = true
		if !strings.HasPrefix(name.HeadComment, "# -- ") {
			t.Errorf("values.yaml: %s (line %d) has no `# -- ` comment", key, name.Line)
		}
	})
	var schema map[string]any
	if err := json.Unmarshal(ch.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	walkSchema(t, schema, "", known)
	for _, key := range []string{
		"global",                                    // Helm's own
		"stream.pacing.burst", "stream.pacing.rate", // the collector has their defaults
	} {
		delete(known, key)
	}
	known["stream.pacing"] = true
	if d := cmp.Diff(slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(values))); d != "" {
		t.Errorf("values.schema.json and values.yaml have not the same keys (-schema +values):\n%s", d)
	}
}

// TestValuesAreUsed: for each value there is a value set that renders otherwise
// without it; so no value is documented for nothing, and the tests of whole
// renderings reach every one.
func TestValuesAreUsed(t *testing.T) {
	ch := loadChart(t)
	used := map[string]bool{}
	unrestricted := map[string]string{"the nodes' network": "webhook: {hostNetwork: true}"} // which no API server of the tests admits
	for _, sets := range []map[string]string{valueSets, inventorySets, unrestricted} {
		for name, text := range sets {
			whole, err := render(ch, text)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, key := range valueKeys(ch.Values, "") {
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
	for _, key := range valueKeys(ch.Values, "") {
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
	for _, key := range valueKeys(ch.Values, "") {
		values := key + ": null"
		if parts := strings.Split(key, "."); len(parts) > 1 {
			values = strings.Join(parts[:len(parts)-1], ": {") + ": {" + parts[len(parts)-1] + ": null" + strings.Repeat("}", len(parts)-1)
		}
		// As helm install does it, which Strict is not: a null takes the value away.
		files, err := renderAs(release, engine.Engine{}, ch, values)
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

// valueKeys lists every value, maps too.
func valueKeys(values map[string]any, prefix string) []string {
	var keys []string
	for name, value := range values {
		keys = append(keys, prefix+name)
		if m, ok := value.(map[string]any); ok {
			keys = append(keys, valueKeys(m, prefix+name+".")...)
		}
	}
	return keys
}

// walkValues visits each value that users set as one: a comment in front of a
// map documents the whole map.
func walkValues(n *yaml.Node, prefix string, visit func(string, *yaml.Node)) {
	for i := 0; i < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 && name.HeadComment == "" {
			walkValues(value, prefix+name.Value+".", visit)
			continue
		}
		visit(prefix+name.Value, name)
	}
}

// walkSchema collects the keys of leaves, and requires that no object with
// keys of its own takes others.
func walkSchema(t *testing.T, schema map[string]any, prefix string, leaves map[string]bool) {
	t.Helper()
	properties, _ := schema["properties"].(map[string]any)
	if schema["additionalProperties"] != false {
		t.Errorf("values.schema.json: %q takes unknown keys", prefix)
	}
	for name, p := range properties {
		p, ok := p.(map[string]any)
		if !ok {
			t.Fatalf("values.schema.json: %s%s is not an object", prefix, name)
		}
		if _, ok := p["properties"]; ok {
			walkSchema(t, p, prefix+name+".", leaves)
			continue
		}
		leaves[prefix+name] = true
	}
}
