package inject

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// expanded returns the container's command line as the kubelet makes it, as far
// as literals tell: what else a $(VARIABLE) stands for is not known here, and it
// stays as it is.
func expanded(c *corev1.Container) []string {
	known := map[string]string{}
	for _, e := range c.Env {
		value := expand(e.Value, known)
		if e.ValueFrom != nil || strings.Contains(value, "$(") {
			delete(known, e.Name)
			continue
		}
		known[e.Name] = value
	}
	var line []string
	for _, all := range [][]string{c.Command, c.Args} {
		for _, arg := range all {
			line = append(line, expand(arg, known))
		}
	}
	return line
}

// expand replaces $(NAME) by what is known, and $$ by $, as the kubelet does.
func expand(text string, known map[string]string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			return out.String() + text
		}
		out.WriteString(text[:i])
		text = text[i:]
		n := 2
		if text[1] == '$' {
			out.WriteByte('$')
		} else if end := strings.IndexByte(text, ')'); text[1] == '(' && end > 0 {
			n = end + 1
			if value, ok := known[text[2:end]]; ok {
				out.WriteString(value)
			} else {
				out.WriteString(text[:n])
			}
		} else {
			out.WriteString(text[:n])
		}
		text = text[n:]
	}
}

// escape keeps Kubernetes from expanding $(VARIABLE) in a value.
func escape(value string) string { return strings.ReplaceAll(value, "$(", "$$(") }

// nodeName returns the container's variable that holds the node's name, and
// whether it is to be added; "" if its name is taken.
func nodeName(c *corev1.Container) (variable string, add bool) {
	for _, name := range []string{falcoNodeVariable, nodeVariable} {
		var last *corev1.EnvVar // of several, the last one counts
		for i := range c.Env {
			if c.Env[i].Name == name {
				last = &c.Env[i]
			}
		}
		switch {
		case last == nil && name == nodeVariable:
			return name, true
		case last != nil && last.ValueFrom != nil && last.ValueFrom.FieldRef != nil && last.ValueFrom.FieldRef.FieldPath == nodeNameField:
			return name, false
		}
	}
	return "", false
}
