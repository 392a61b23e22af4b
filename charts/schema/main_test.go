package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const values = `
# Of the file, not of the first key.

# -- A name, over
# two lines.
name: ""
# -- Whether.
on: true
part:
  # -- How many.
  many: 2
  # -- A whole map.
  map: {a: b}
  # -- One
  # of some.
  kind: a
`

const constraints = `
definitions: {count: {minimum: 1}}
values:
  name: {pattern: ^x*$}
  part: {additionalProperties: true}
  part.many: {$ref: '#/definitions/count'}
  part.kind: {enum: [a, "on"]}
whole: {if: {}}
`

func TestGenerate(t *testing.T) {
	got, err := generate([]byte(values), []byte(constraints))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "additionalProperties": false,
  "definitions": {
    "count": {
      "minimum": 1
    }
  },
  "if": {},
  "properties": {
    "name": {
      "description": "A name, over two lines.",
      "pattern": "^x*$",
      "type": "string"
    },
    "on": {
      "description": "Whether.",
      "type": "boolean"
    },
    "part": {
      "additionalProperties": true,
      "properties": {
        "kind": {
          "description": "One of some.",
          "enum": [
            "a",
            "on"
          ],
          "type": "string"
        },
        "many": {
          "$ref": "#/definitions/count",
          "description": "How many."
        },
        "map": {
          "description": "A whole map.",
          "type": "object"
        }
      },
      "required": [
        "many",
        "kind"
      ],
      "type": "object"
    }
  },
  "required": [
    "on",
    "part"
  ],
  "type": "object"
}
`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, tc := range []struct{ name, values, constraints, want string }{
		{"no comment", "a:\n  b: 1", "values: {}", "a.b (line 2) has no"},
		{"a comment of another kind", "# about\na: 1", "values: {}", "a (line 2) has no"},
		{"a constraint of nothing", "# -- It.\na: 1", "values: {b: {minimum: 1}}", "b is no value"},
		{"a constraint below a value", "# -- It.\na: {b: 1}", "values: {a.b: {minimum: 1}}", "a.b is no value"},
		{"two descriptions", "# -- It.\na: 1", "values: {a: {description: That.}}", "a has a description"},
		{"an unknown key", "# -- It.\na: 1", "value: {}", "field value not found"},
		{"no type", "# -- It.\na:", "values: {}", "the type of"},
		{"nothing", "", "values: {}", "empty"},
	} {
		if _, err := generate([]byte(tc.values), []byte(tc.constraints)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want an error with %q, got: %v", tc.name, tc.want, err)
		}
	}
}
