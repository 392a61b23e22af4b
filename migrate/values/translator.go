package values

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// translator gathers what becomes of a release. A rule takes a key; what no rule
// has taken is unknown in the end.
type translator struct {
	Release
	all    map[string]any // the values that the old chart was rendered with
	taken  []string
	values map[string]any
	notes  []Note
	hand   []string
}

func newTranslator(r Release) *translator {
	return &translator{Release: r, all: coalesce(r.Defaults, r.User), values: map[string]any{}}
}

// coalesce lays what a user gave over a chart's defaults, as Helm does: null takes
// a key away.
func coalesce(under, over map[string]any) map[string]any {
	all := maps.Clone(under)
	if all == nil {
		all = map[string]any{}
	}
	for k, v := range over {
		a, isMap := all[k].(map[string]any)
		b, alsoMap := v.(map[string]any)
		_, known := all[k]
		switch {
		case v == nil && known:
			delete(all, k)
		case isMap && alsoMap:
			all[k] = coalesce(a, b)
		default:
			all[k] = v
		}
	}
	return all
}

// at returns the value at a key, false if there is none.
func at(values map[string]any, key string) (any, bool) {
	var v any = values
	for k := range strings.SplitSeq(key, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[k]; !ok {
			return nil, false
		}
	}
	return v, true
}

// value returns what the old release has at a key, and whether that is another
// than the old chart's default. The key counts as taken.
func (t *translator) value(key string) (v any, changed bool) {
	t.taken = append(t.taken, key)
	v, _ = at(t.all, key)
	def, _ := at(t.Defaults, key)
	return v, !same(v, def)
}

// same compares values that came by different ways: 1 and 1.0, nothing and empty.
func same(a, b any) bool {
	if empty(a) && empty(b) {
		return true
	}
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

func empty(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Map, reflect.Slice, reflect.String:
		return r.Len() == 0
	default:
		return false
	}
}

// has reports whether the old release, or its chart, has a key at all.
func (t *translator) has(key string) bool {
	_, ok := at(t.all, key)
	_, was := at(t.Defaults, key)
	return ok || was
}

// set puts a value into the new ones.
func (t *translator) set(key string, v any) {
	keys := strings.Split(key, ".")
	m := t.values
	for _, k := range keys[:len(keys)-1] {
		next, ok := m[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[k] = next
		}
		m = next
	}
	m[keys[len(keys)-1]] = v
}

// note says what became of a key; what was said first holds.
func (t *translator) note(key string, o Outcome, reason string, to ...string) {
	if slices.ContainsFunc(t.notes, func(n Note) bool { return n.Key == key }) {
		return
	}
	v, _ := at(t.all, key)
	if o == Unknown {
		v = nil // it may be a secret
	}
	t.notes = append(t.notes, Note{Key: key, Outcome: o, Value: show(key, v), To: to, Reason: reason})
}

// tell adds something that a person has to do or to know.
func (t *translator) tell(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(t.hand, s) {
		t.hand = append(t.hand, s)
	}
}

// form is what a value must be.
type form string

const (
	text    form = "a text"
	number  form = "a whole number"
	boolean form = "true or false"
	object  form = "an object"
	list    form = "a list"
	names   form = "a list of texts"
)

func (f form) fits(v any) bool {
	switch v := v.(type) {
	case string:
		return f == text
	case bool:
		return f == boolean
	case int, int64:
		return f == number
	case float64:
		return f == number && v == float64(int64(v))
	case map[string]any:
		return f == object
	case []any:
		return f == list || f == names && !slices.ContainsFunc(v, func(e any) bool { _, ok := e.(string); return !ok })
	}
	return false
}

// take returns the value of a key, if it has that form; else it is unknown. Where
// there is none, it is the zero value.
func take[T any](t *translator, key string, f form) (v T, changed, ok bool) {
	raw, changed := t.value(key)
	if raw == nil {
		return v, changed, true
	}
	if !f.fits(raw) {
		t.note(key, Unknown, "want "+string(f))
		return v, false, false
	}
	if n, isFloat := raw.(float64); isFloat && f == number {
		raw = int64(n)
	}
	if n, isInt := raw.(int); isInt {
		raw = int64(n)
	}
	v, ok = raw.(T)
	return v, changed, ok
}

// move gives a value that is not the old chart's default to the new release.
func (t *translator) move(key string, f form, to string) {
	if !t.has(key) {
		return
	}
	switch v, changed, ok := take[any](t, key, f); {
	case !ok:
	case !changed:
		t.note(key, Defaulted, "")
	case empty(v):
		t.note(key, Defaulted, "it was emptied: ours holds")
	default:
		t.set(to, v)
		t.note(key, Mapped, "", to)
	}
}

// drop leaves a key out, whatever it holds.
func (t *translator) drop(reason string, keys ...string) {
	for _, key := range keys {
		if t.has(key) {
			t.value(key)
			t.note(key, Dropped, reason)
		}
	}
}

// unknown notes what no rule has taken.
func (t *translator) unknown() {
	t.rest("", coalesce(t.Defaults, t.User))
	// What null has taken away was said too.
	t.rest("", t.User)
}

func (t *translator) rest(prefix string, values map[string]any) {
	for _, k := range slices.Sorted(maps.Keys(values)) {
		key := strings.TrimPrefix(prefix+"."+k, ".")
		if t.covered(key) {
			continue
		}
		if below, ok := values[k].(map[string]any); ok && len(below) > 0 && t.leads(key) {
			t.rest(key, below)
			continue
		}
		reason := "no such key is known"
		if t.leads(key) {
			reason = "want " + string(object)
		} else if near := t.nearest(key); near != "" {
			reason += "; is " + near + " meant?"
		}
		t.taken = append(t.taken, key)
		v := values[k]
		if empty(v) {
			t.notes = append(t.notes, Note{Key: key, Outcome: Dropped, Value: show(key, v), Reason: "no such key is known, and it is empty"})
			continue
		}
		// Nobody knows whether it is a secret: it is not shown.
		t.notes = append(t.notes, Note{Key: key, Outcome: Unknown, Reason: reason})
	}
}

// covered reports whether a rule has taken a key, or one above it.
func (t *translator) covered(key string) bool {
	return slices.ContainsFunc(t.taken, func(k string) bool { return k == key || strings.HasPrefix(key, k+".") })
}

// leads reports whether a rule has taken a key below this one.
func (t *translator) leads(key string) bool {
	return slices.ContainsFunc(t.taken, func(k string) bool { return strings.HasPrefix(k, key+".") })
}

// nearest is the key that a rule has taken and that is written most alike, empty
// if none is.
func (t *translator) nearest(key string) string {
	best, least := "", 3 // letters that may differ
	for _, k := range t.taken {
		if d := distance(key, k); d < least || d == least && best != "" && k < best {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out or exchanged (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64 // of no use, and slow
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			swap := last
			if a[i] != b[j] {
				swap++
			}
			last = row[j+1]
			row[j+1] = min(swap, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}

// secret reports whether a key may hold a credential.
func secret(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc([]string{"token", "secret", "password", "passwd", "key", "credential", "auth"}, func(s string) bool { return strings.Contains(key, s) })
}

// Redacted is a text without the password of the URL that it is; other texts are
// as they were.
func Redacted(s string) string {
	if u, err := url.Parse(s); err == nil && u.User != nil {
		return u.Redacted()
	}
	return s
}

// show writes a value for people: a scalar as it is, of others what they consist
// of. What may be a credential is not shown.
func show(key string, v any) string {
	const most = 60
	if empty(v) {
		return ""
	}
	var s string
	switch v := v.(type) {
	case map[string]any:
		s = "{" + strings.Join(slices.Sorted(maps.Keys(v)), ", ") + "}"
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, cmp.Or(show(key, e), "-"))
		}
		s = "[" + strings.Join(all, ", ") + "]"
	case bool:
		return fmt.Sprint(v)
	case string, int, int64, float64:
		if secret(key) {
			return "(hidden)"
		}
		s = Redacted(fmt.Sprint(v))
	default:
		return fmt.Sprintf("(%T)", v)
	}
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return s
}
