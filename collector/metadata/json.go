package metadata

import (
	"encoding/json"
	"slices"
)

// appendJSON appends the bytes of json.Marshal. Every change of an object makes
// them once; by hand it costs a quarter.
func (m Meta) appendJSON(b []byte) []byte {
	b = append(b, '{')
	if m.GenerateName != "" {
		b = appendText(append(b, `"generateName":`...), m.GenerateName)
		b = append(b, ',')
	}
	if len(m.Labels) > 0 {
		b = append(b, `"labels":{`...)
		var few [16]string // more are on the heap
		keys := few[:0]
		for key := range m.Labels {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for i, key := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendText(b, key), ':')
			b = appendText(b, m.Labels[key])
		}
		b = append(b, '}', ',')
	}
	b = appendText(append(b, `"name":`...), m.Name)
	if m.Namespace != "" {
		b = appendText(append(b, `,"namespace":`...), m.Namespace)
	}
	b = appendText(append(b, `,"uid":`...), m.UID)
	return append(b, '}')
}

func (s Status) appendJSON(b []byte) []byte {
	b = append(b, '{')
	if s.PodIP != "" {
		b = appendText(append(b, `"podIP":`...), s.PodIP)
	}
	return append(b, '}')
}

// appendText appends a JSON string as json.Marshal writes it, with HTML escaping.
// What Kubernetes takes for names and labels needs none.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // a string: there is no error
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
