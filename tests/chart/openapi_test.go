package chart_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
	sigsyaml "sigs.k8s.io/yaml"
)

// oldestKubernetes is the newest patch release of the oldest minor version
// that Chart.yaml's kubeVersion admits.
const oldestKubernetes = "v1.31.14"

// TestOldestKubernetesKnowsEveryField: every object fits the OpenAPI
// description of the oldest supported Kubernetes, without an unknown field.
func TestOldestKubernetesKnowsEveryField(t *testing.T) {
	ch := loadChart(t)
	minor := oldestKubernetes[1:strings.LastIndex(oldestKubernetes, ".")]
	if want := ">=" + minor + ".0-0"; ch.Metadata.KubeVersion != want {
		t.Fatalf("kubeVersion of Chart.yaml is %q, tested is %q", ch.Metadata.KubeVersion, want)
	}
	v := newValidator(t)
	for name, r := range renderAll(t) {
		t.Run(name, func(t *testing.T) {
			for _, o := range r.objects {
				if isForeign(o.GroupVersionKind().GroupKind()) {
					continue // TestAPIServer checks it, by its own project's definition
				}
				if err := conforms(v, o.Object); err != nil {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
				}
			}
		})
	}
}

// TestConformsRefuses: the check above is one.
func TestConformsRefuses(t *testing.T) {
	v := newValidator(t)
	meta := map[string]any{"name": "x"}
	for name, o := range map[string]map[string]any{
		"unknown field": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "dat": map[string]any{}},
		"unknown field of a list's item": {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": map[string]any{
			"containers": []any{map[string]any{"name": "a", "restartPolicyRules": []any{}}}, // since 1.34
		}},
		"wrong type":      {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": map[string]any{"a": true}},
		"missing field":   {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": map[string]any{}},
		"unknown kind":    {"apiVersion": "v1", "kind": "Gizmo", "metadata": meta},
		"unknown version": {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": meta},
	} {
		if err := conforms(v, o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func conforms(v validator.Validator, o map[string]any) error {
	text, err := sigsyaml.Marshal(o)
	if err != nil {
		return err
	}
	result := v.ValidateResource(resource.Resource{Bytes: text})
	if result.Status != validator.Valid {
		return errors.Join(fmt.Errorf("status %d", result.Status), result.Err)
	}
	return nil
}

// newValidator makes a kubeconform over the OpenAPI description that is part
// of Kubernetes' own module.
func newValidator(t *testing.T) validator.Validator {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(download(t, "k8s.io/kubernetes@"+oldestKubernetes), "api", "openapi-spec", "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := writeSchemas(dir, text); err != nil {
		t.Fatal(err)
	}
	v, err := validator.New([]string{filepath.Join(dir, schemaName)}, validator.Opts{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// download returns the directory of the files of a module, module@version.
func download(t *testing.T, what string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", what)
	cmd.Dir = t.TempDir() // outside of any module: this one does not depend on it
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &module); err != nil || jsonErr != nil || module.Dir == "" {
		t.Fatalf("%s: %v: %s%s", cmd, err, module.Error, stderr.Bytes())
	}
	return module.Dir
}

// schemaName is kubeconform's template for the file of a kind's schema.
const schemaName = "{{.ResourceKind}}_{{.Group}}_{{.ResourceAPIVersion}}.json"

// writeSchemas turns an OpenAPI v2 description into JSON schemas: all
// definitions in one file, and beside it one file a kind that refers to it.
func writeSchemas(dir string, swagger []byte) error {
	var doc struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(swagger, &doc); err != nil {
		return err
	}
	for name, d := range doc.Definitions {
		kinds, _ := d["x-kubernetes-group-version-kind"].([]any)
		for _, k := range kinds {
			gvk, ok := k.(map[string]any)
			if !ok {
				return fmt.Errorf("%s: not a group, version and kind: %v", name, k)
			}
			if err := writeKind(dir, name, gvk); err != nil {
				return err
			}
		}
		closeObjects(d)
	}
	// What the API server reads from text or number alike.
	textOrNumber := map[string]any{"type": []string{"string", "number"}}
	doc.Definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = textOrNumber
	doc.Definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = textOrNumber
	text, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "definitions.json"), text, 0o600)
}

func writeKind(dir, definition string, gvk map[string]any) error {
	// kubeconform takes the part of apiVersion before the slash for the group:
	// the version, in the core group.
	group := gvk["group"]
	if group == "" {
		group = gvk["version"]
	}
	file := fmt.Sprintf("%s_%s_%s.json", strings.ToLower(fmt.Sprint(gvk["kind"])), group, gvk["version"])
	return os.WriteFile(filepath.Join(dir, file), fmt.Appendf(nil, `{"$ref": "definitions.json#/definitions/%s"}`, definition), 0o600)
}

// closeObjects lets an object with fields of its own have no others.
func closeObjects(schema map[string]any) {
	if _, ok := schema["properties"]; ok && schema["additionalProperties"] == nil {
		schema["additionalProperties"] = false
	}
}
