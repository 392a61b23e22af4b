package inventory

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
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

// digest stands for a value.
func (r *Redactor) digest(value string) string {
	if value == "" {
		return ""
	}
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte("metawire.dev/redaction/v1\x00" + value))
	return "hmac-sha256:" + hex.EncodeToString(h.Sum(nil)[:16])
}

// Object redacts an object in place.
func (r *Redactor) Object(o map[string]any) {
	annotations(o)
	switch kind, group := text(o, "kind"), text(o, "apiVersion"); {
	case kind == "Secret" && group == "v1":
		for _, field := range []string{"data", "stringData"} {
			r.all(o, field, func(_, value string) string { return r.digest(value) })
		}
	case kind == "ConfigMap" && group == "v1":
		r.all(o, "data", likely)
		r.all(o, "binaryData", func(key, value string) string {
			if likely(key, "x") == masked {
				return masked
			}
			return value
		})
	}
	for key, value := range o {
		if key != "metadata" {
			o[key] = r.value(key, value)
		}
	}
}

// annotations redacts the metadata of an object, or of a pod template.
func annotations(o map[string]any) {
	m, _ := o["metadata"].(map[string]any)
	if m == nil {
		return
	}
	delete(m, "managedFields")
	all, _ := m["annotations"].(map[string]any)
	delete(all, lastApplied)
	for key, value := range all {
		if s, ok := value.(string); ok {
			all[key] = likely(key, s)
		}
	}
	if all != nil && len(all) == 0 {
		delete(m, "annotations")
	}
}

// all changes every text of a map within an object.
func (r *Redactor) all(o map[string]any, field string, change func(key, value string) string) {
	m, _ := o[field].(map[string]any)
	for key, value := range m {
		if s, ok := value.(string); ok {
			m[key] = change(key, s)
		}
	}
}

// value redacts what stands under a key, at any depth: containers are found by
// the names of their lists, in whatever object, and templates by their metadata.
func (r *Redactor) value(key string, v any) any {
	switch v := v.(type) {
	case string:
		return certain(v)
	case []any:
		switch key {
		case "containers", "initContainers", "ephemeralContainers":
			for _, c := range v {
				if c, ok := c.(map[string]any); ok {
					r.container(c)
				}
			}
		case "env":
			r.env(v)
		case "command", "args":
			arguments(v)
		case "httpHeaders":
			headers(v)
		}
		for i := range v {
			v[i] = r.value("", v[i])
		}
	case map[string]any:
		if _, ok := v["metadata"].(map[string]any); ok {
			annotations(v)
		}
		for k, inner := range v {
			v[k] = r.value(k, inner)
		}
	}
	return v
}

// container redacts what the general rules would not see as a container's.
func (r *Redactor) container(c map[string]any) {
	for field, change := range map[string]func([]any){"env": r.env, "command": arguments, "args": arguments} {
		if list, ok := c[field].([]any); ok {
			change(list)
		}
	}
}

// env replaces every literal value: which of them are credentials nobody knows.
func (r *Redactor) env(list []any) {
	for _, e := range list {
		e, _ := e.(map[string]any)
		if s, ok := e["value"].(string); ok && !strings.HasPrefix(s, "hmac-sha256:") {
			e["value"] = r.digest(s)
		}
	}
}

// arguments masks what looks like a credential, and what follows a flag that is
// called so.
func arguments(list []any) {
	flag := ""
	for i, a := range list {
		s, ok := a.(string)
		if !ok {
			continue
		}
		switch name, _, assigned := strings.Cut(s, "="); {
		case flag != "" && !strings.HasPrefix(s, "-"):
			list[i], flag = masked, ""
		case strings.HasPrefix(s, "-") && suspectName.MatchString(name):
			if flag = name; assigned {
				list[i], flag = name+"="+masked, ""
			}
		default:
			list[i], flag = likely("", s), ""
		}
	}
}

func headers(list []any) {
	for _, h := range list {
		h, _ := h.(map[string]any)
		if s, ok := h["value"].(string); ok {
			h["value"] = likely(text(h, "name"), s)
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
		if suspectName.MatchString(key) {
			return masked
		}
	case []any:
		for i := range v {
			v[i] = r.values(key, v[i])
		}
	case map[string]any:
		for k, inner := range v {
			if name := text(v, "name"); k == "value" && name != "" { // as in env
				k = name
				v["value"] = r.values(k, inner)
				continue
			}
			v[k] = r.values(k, inner)
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
