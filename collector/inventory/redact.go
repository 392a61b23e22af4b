package inventory

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// lastApplied holds an object as somebody applied it, credentials and all.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Redactor takes credentials out of objects. A digest with a key stands for each
// value of a Secret and each literal environment value, so that a change can be
// seen and the value cannot; what else looks like a credential is masked. Any
// goroutine may use it.
type Redactor struct{ key []byte }

// NewRedactor returns a redactor; the key, of 32 bytes at least, must be the same
// for as long as digests are compared.
func NewRedactor(key []byte) *Redactor { return &Redactor{bytes.Clone(key)} }

// of returns the redactor of one object. Equal values of two objects have
// different digests: else who may create objects could guess what is in a Secret
// and see that the guess is right.
func (r *Redactor) of(uid string) *Redactor {
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte("metawire.dev/redaction/v1\x00" + uid))
	return &Redactor{h.Sum(nil)}
}

// digest stands for a value.
func (r *Redactor) digest(value string) string {
	if value == "" {
		return ""
	}
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte(value))
	return "hmac-sha256:" + hex.EncodeToString(h.Sum(nil)[:16])
}

// digests replaces every value of a tree.
func (r *Redactor) digests(v any) any {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return r.digest(v)
	case []any:
		for i := range v {
			v[i] = r.digests(v[i])
		}
		return v
	case map[string]any:
		for k := range v {
			v[k] = r.digests(v[k])
		}
		return v
	default:
		return r.digest(fmt.Sprint(v))
	}
}

// Object redacts an object in place.
func (r *Redactor) Object(o map[string]any) {
	r.of(text(o, "metadata", "uid")).value("", o)
}

// isEnv and isCommand tell where environment variables and commands stand: in
// containers, and in what operators make of their own objects.
func isEnv(key string) bool {
	return endsLike(key, "env") || endsLike(key, "envs") || endsLike(key, "envvar") || endsLike(key, "envvars") ||
		endsLike(key, "environment") || endsLike(key, "environmentvariables")
}

func isCommand(key string) bool {
	return endsLike(key, "args") || endsLike(key, "command") || endsLike(key, "arguments")
}

func endsLike(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}

// value redacts what stands under a key, at any depth and in whatever object.
func (r *Redactor) value(key string, v any) any {
	switch v := v.(type) {
	case string:
		if isCommand(key) {
			return likely("", v)
		}
		return certain(v)
	case []any:
		if isEnv(key) {
			r.env(v)
			return v
		}
		if isCommand(key) {
			arguments(v)
		}
		for i := range v {
			v[i] = r.value("", v[i])
		}
	case map[string]any:
		switch {
		case key == "openAPIV3Schema": // no values, only their names
			return v
		case isEnv(key):
			r.envMap(v)
		}
		r.kinds(v)
		r.metadata(v)
		if s, ok := v["value"].(string); ok && text(v, "name") != "" { // HTTP headers, parameters
			v["value"] = likely(text(v, "name"), s)
		}
		for k, inner := range v {
			if k != "metadata" {
				v[k] = r.value(k, inner)
			}
		}
	}
	return v
}

// kinds redacts what is of a kind that holds texts, also within another object.
func (r *Redactor) kinds(o map[string]any) {
	if group := text(o, "apiVersion"); group != "v1" && group != "" {
		return
	}
	switch text(o, "kind") {
	case "Secret":
		for _, field := range []string{"data", "stringData"} {
			if v, ok := o[field]; ok {
				o[field] = r.digests(v)
			}
		}
	case "ConfigMap":
		texts(o["data"], r.text)
		texts(o["binaryData"], r.binary)
	}
}

// metadata redacts that of an object, or of a template within one.
func (r *Redactor) metadata(o map[string]any) {
	m, _ := o["metadata"].(map[string]any)
	if m == nil {
		return
	}
	delete(m, "managedFields")
	all, _ := m["annotations"].(map[string]any)
	delete(all, lastApplied)
	texts(all, r.text)
	if all != nil && len(all) == 0 {
		delete(m, "annotations")
	}
}

// texts changes every text of a map.
func texts(m any, change func(key, value string) string) {
	all, _ := m.(map[string]any)
	for key, value := range all {
		if s, ok := value.(string); ok {
			all[key] = change(key, s)
		}
	}
}

// text redacts a text of any form: JSON by its structure, which may be an object
// as somebody applied it.
func (r *Redactor) text(key, s string) string {
	if start := strings.TrimLeft(s, " \t\r\n"); suspect(key) || !strings.HasPrefix(start, "{") && !strings.HasPrefix(start, "[") {
		return likely(key, s)
	}
	var tree any
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil || d.More() {
		return likely(key, s)
	}
	var before, after bytes.Buffer
	was, err := encode(&before, tree)
	if err != nil {
		return masked
	}
	is, err := encode(&after, r.values("", r.value("", tree)))
	if err != nil {
		return masked
	}
	var compact bytes.Buffer
	if bytes.Equal(was, is) && json.Compact(&compact, []byte(s)) == nil && compact.Len() == len(was) { // else a key is there twice
		return s
	}
	return string(is)
}

// binary masks what is a text, in base64, that holds a credential.
func (r *Redactor) binary(key, value string) string {
	plain, err := base64.StdEncoding.DecodeString(value)
	if suspect(key) || keystore.MatchString(key) || err == nil && utf8.Valid(plain) && r.text(key, string(plain)) != string(plain) {
		return masked
	}
	return value
}

// env replaces every literal value: which of them are credentials nobody knows.
func (r *Redactor) env(list []any) {
	for i := range list {
		e, ok := list[i].(map[string]any)
		if !ok { // such as NAME=value
			list[i] = r.digests(list[i])
			continue
		}
		for k, inner := range e {
			if k == "value" {
				e[k] = r.digests(inner)
			} else {
				e[k] = r.value(k, inner)
			}
		}
	}
}

// envMap is env of variables by their names.
func (r *Redactor) envMap(all map[string]any) {
	for k, v := range all {
		switch v := v.(type) {
		case map[string]any:
			if literal, ok := v["value"]; ok {
				v["value"] = r.digests(literal)
			}
		case []any:
		default:
			all[k] = r.digests(v)
		}
	}
}

// values redacts a tree of which nothing is known but its keys, such as Helm's
// values.
func (r *Redactor) values(key string, v any) any {
	switch v := v.(type) {
	case string:
		return likely(key, v)
	case json.Number:
		if suspect(key) {
			return masked
		}
	case []any:
		switch {
		case isEnv(key):
			r.env(v)
			return v
		case isCommand(key):
			arguments(v)
		}
		for i := range v {
			v[i] = r.values(key, v[i])
		}
	case map[string]any:
		if isEnv(key) {
			r.envMap(v)
			return v
		}
		for k, inner := range v {
			as := k
			if name := text(v, "name"); k == "value" && name != "" {
				as = name
			} else if holdsCredentials.MatchString(key) && !describes(k) { // by their owners' names
				as = key
			}
			v[k] = r.values(as, inner)
		}
	}
	return v
}

// encode writes an object as it is sent, with sorted keys, into a buffer that is
// used again.
func encode(b *bytes.Buffer, o any) ([]byte, error) {
	b.Reset()
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(o); err != nil {
		return nil, fmt.Errorf("encode an object: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
