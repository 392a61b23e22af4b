package chart_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	ours "github.com/metawire/metawire/migrate/release"
)

const (
	release   = "metawire"
	namespace = "metawire"
	// monitoring is where a value set has what is for Prometheus and Grafana.
	monitoring = "monitoring"
)

// TestMain asks rapid for more than its 100 cases, and for no files: the seed
// that it prints repeats a failure. Flags on the command line still win.
func TestMain(m *testing.M) {
	err := errors.Join(flag.Set("rapid.checks", "250"), flag.Set("rapid.nofailfile", "true"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // before any test runs, the only way to fail
	}
	m.Run()
}

// loadChart returns the embedded chart.
func loadChart(t testing.TB) *helmchart.Chart {
	t.Helper()
	ch, err := ours.Chart()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Validate(); err != nil {
		t.Fatal(err)
	}
	return ch
}

// render returns what `helm install --values` would send, by template, and
// under the key NOTES.txt what it would print.
func render(ch *helmchart.Chart, values string) (map[string]string, error) {
	// Strict: a value that is mistyped in a template is an error.
	return renderAs(release, namespace, engine.Engine{Strict: true}, ch, values)
}

// renderAs renders the release of that name in that namespace.
func renderAs(name, namespace string, e engine.Engine, ch *helmchart.Chart, values string) (map[string]string, error) {
	v, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	options := chartutil.ReleaseOptions{Name: name, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(ch, v, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := e.Render(ch, all)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, text := range files {
		switch {
		case path.Base(name) == "NOTES.txt":
			out["NOTES.txt"] = text
		case strings.TrimSpace(text) != "":
			out[strings.TrimPrefix(name, ch.Name()+"/")] = text
		}
	}
	return out, nil
}

// objects decodes what was rendered; a key written twice is an error.
func objects(files map[string]string) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name == "NOTES.txt" {
			continue
		}
		r := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(files[name])))
		for {
			doc, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			var o map[string]any
			if err := sigsyaml.UnmarshalStrict(doc, &o); err != nil {
				return nil, fmt.Errorf("%s: %w:\n%s", name, err, doc)
			}
			if len(bytes.TrimSpace(doc)) == 0 || o == nil {
				continue
			}
			all = append(all, &unstructured.Unstructured{Object: o})
		}
	}
	return all, nil
}

// find decodes the one object of that kind and name into T; no unknown fields.
func find[T any](objs []*unstructured.Unstructured, kind, name string) (*T, error) {
	for _, o := range objs {
		if o.GetKind() == kind && o.GetName() == name {
			into := new(T)
			err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true)
			return into, err
		}
	}
	return nil, fmt.Errorf("no %s %s was rendered", kind, name)
}

// mustRender renders and decodes, or ends the test.
func mustRender(t testing.TB, ch *helmchart.Chart, values string) (map[string]string, []*unstructured.Unstructured) {
	t.Helper()
	files, err := render(ch, values)
	if err != nil {
		t.Fatal(err)
	}
	objs, err := objects(files)
	if err != nil {
		t.Fatal(err)
	}
	return files, objs
}
