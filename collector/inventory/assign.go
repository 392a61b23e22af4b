package inventory

import (
	"regexp"
	"strings"
)

// assigned is the begin of an assignment: name =, name:, "name": and the like.
var assigned = regexp.MustCompile(`([A-Za-z0-9_.$/-]{2,128})(\\?["']?\]?\s*(?::=|=>|=|:)\s*)`)

// indented is what stands before the first word of a line of YAML.
var indented = regexp.MustCompile(`^[ \t]*((- +)*)`)

// pairLines is how far the value may be from the name that it has beside it:
// name: X, value: Y.
const pairLines = 3

// assignments masks what is assigned to suspect names, line by line, in YAML,
// properties, shell and what else looks like them. A value in quotes ends with
// them, another with its line; what is indented below belongs to it.
func assignments(s string) string {
	lines := strings.Split(s, "\n")
	m := masker{block: -1}
	for i, line := range lines {
		lines[i] = m.line(line)
	}
	return strings.Join(lines, "\n")
}

// masker is what the lines before tell of a line.
type masker struct {
	block     int  // column of a name whose value goes on below; -1 if none does
	continued bool // the value goes on, by a backslash
	pair      int  // lines in which the value of a suspect name is awaited
}

func (m *masker) line(line string) string {
	at := indented.FindStringSubmatchIndex(line)
	column, blank := at[1], strings.TrimSpace(line) == ""
	switch {
	case m.continued:
		m.continued = strings.HasSuffix(line, `\`)
		return masked
	case m.block >= 0 && blank:
		return line
	case m.block >= 0 && (column > m.block || at[3] > at[2] && column >= m.block):
		return line[:at[2]] + masked
	}
	m.block = -1
	if m.pair > 0 && !blank {
		m.pair--
	}
	var out strings.Builder
	for rest := line; ; {
		p := assigned.FindStringSubmatchIndex(rest)
		if p == nil {
			out.WriteString(rest)
			return out.String()
		}
		name, value := rest[p[2]:p[3]], rest[p[1]:]
		out.WriteString(rest[:p[1]])
		if !suspect(name) && (m.pair == 0 || !strings.EqualFold(name, "value")) {
			if strings.EqualFold(name, "name") || strings.EqualFold(name, "key") {
				if suspect(first(value)) {
					m.pair = pairLines
				}
			}
			rest = value
			continue
		}
		end, whole := ends(value)
		if end > 0 {
			out.WriteString(masked)
		}
		if !whole {
			m.block, m.continued = column, strings.HasSuffix(line, `\`)
			return out.String()
		}
		rest = value[end:]
	}
}

// first is the first word of a value, without its quotes.
func first(value string) string {
	value = strings.TrimLeft(value, `\"'`)
	if i := strings.IndexAny(value, `\"' ,;}`); i >= 0 {
		value = value[:i]
	}
	return value
}

// ends says where a value in quotes ends, with what stands close to it; whole is
// false for any other, which ends with its line or below.
func ends(value string) (end int, whole bool) {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return len(value), false
	}
	quote := value[0]
	for i := 1; i < len(value); i++ {
		switch {
		case value[i] == '\\' && quote == '"':
			i++
		case value[i] == quote && i+1 < len(value) && value[i+1] == quote && quote == '\'':
			i++
		case value[i] == quote:
			if i++; i < len(value) && !strings.ContainsRune(" \t\r,;)]}>/", rune(value[i])) {
				return len(value), false // it goes on in other quotes
			}
			return i, true
		}
	}
	return len(value), false
}
