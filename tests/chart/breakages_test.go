package chart_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	sigsyaml "sigs.k8s.io/yaml"
)

// TestBreakages: of everything by which metawire check is tested it is known which
// alert tells of it, and that one is tried; or why there is none.
func TestBreakages(t *testing.T) {
	text, err := os.ReadFile("testdata/breakages.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var known struct{ Alerts, None map[string]string }
	if err := sigsyaml.UnmarshalStrict(text, &known); err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	for name := range expected(t).Alerts {
		tried[alertOf(name)] = true
	}
	got := slices.Collect(maps.Keys(known.None))
	for name, alert := range known.Alerts {
		got = append(got, name)
		if !tried[alert] {
			t.Errorf("%s: there is no alert %q that is tried", name, alert)
		}
	}
	want := breakages(t)
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("breakages of metawire check (-rows +testdata/breakages.yaml):\n%s", d)
	}
}

// breakages returns the names of the rows by which metawire check is tested.
func breakages(t *testing.T) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../e2e/check_rows_test.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		rows, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		if of, ok := rows.Type.(*ast.ArrayType); !ok || fmt.Sprint(of.Elt) != "breakage" {
			return true
		}
		for _, row := range rows.Elts {
			names = append(names, nameOf(t, row))
		}
		return false
	})
	return names
}

// nameOf returns the field name of a struct's literal.
func nameOf(t *testing.T, literal ast.Expr) string {
	t.Helper()
	row, _ := literal.(*ast.CompositeLit)
	for _, field := range row.Elts {
		if kv, ok := field.(*ast.KeyValueExpr); ok && fmt.Sprint(kv.Key) == "name" {
			if value, ok := kv.Value.(*ast.BasicLit); ok {
				name, err := strconv.Unquote(value.Value)
				if err != nil {
					t.Fatal(err)
				}
				return name
			}
		}
	}
	t.Fatal("a row has no name")
	return ""
}
