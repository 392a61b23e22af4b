// Package values turns the values of a predecessor's chart into those of
// Metawire's, and says of each key what became of it. It does no I/O.
package values

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The old charts.
const (
	Metacollector = "k8s-metacollector"
	Firefly       = "firefly-k8s-collector"
	Infralight    = "infralight-k8s-collector"
)

// Release is what is known of an old release.
type Release struct {
	Name, Namespace string
	Chart, Version  string
	// Defaults are the values of the stored chart, User those that were given.
	Defaults, User map[string]any
	// Config is the data of its ConfigMap as it is now; of charts that have one.
	Config map[string]string
	// Credentials is the Secret, in the namespace of the new release, that will have
	// accessKey and secretKey.
	Credentials string
	// Types are our chart's resource types, as kubectl writes them: true if they
	// are collected without being asked for.
	Types map[string]bool
	// Served are the API groups that serve a type now, by its plural; "" is the core
	// group.
	Served map[string][]string
	// CustomGroups are the API groups of the cluster's CustomResourceDefinitions.
	CustomGroups []string
}

// Outcome is what became of a key.
type Outcome string

// The outcomes.
const (
	Mapped    Outcome = "mapped"
	Defaulted Outcome = "defaulted" // it was the old chart's default; ours holds
	Dropped   Outcome = "dropped"
	Unknown   Outcome = "unknown" // what it means is not known, or not in this form
)

// Note says what became of one key of the old release.
type Note struct {
	// Key is the old value's, with dots. It stands for all below it. What was
	// edited in the cluster begins with "configmap: ".
	Key     string  `json:"key"`
	Outcome Outcome `json:"outcome"`
	// Value is the old one, for people: short, and no secret.
	Value string `json:"value,omitempty"`
	// To are the keys of the new values.
	To     []string `json:"to,omitempty"`
	Reason string   `json:"reason,omitempty"`
}

// Translation is what became of an old release's values.
type Translation struct {
	// Values are of chart metawire. No secret is in them.
	Values map[string]any
	// Notes are sorted by key. Every key that the old release had is below one of
	// them.
	Notes []Note
	// Hand is what a person has to do, or to know.
	Hand []string
}

// translate does all that one chart takes.
type translate func(*translator)

func charts() map[string]translate {
	return map[string]translate{Metacollector: metacollector, Firefly: firefly, Infralight: infralight}
}

// Charts are the names of the old charts.
func Charts() []string { return slices.Sorted(maps.Keys(charts())) }

// Translate turns the values of an old release into new ones. It takes what it is
// given: a value that no such chart can have is a note. The error is of a chart
// that is none of Charts.
func Translate(r Release) (*Translation, error) {
	do := charts()[r.Chart]
	if do == nil {
		return nil, fmt.Errorf("chart %q: known are %s", r.Chart, strings.Join(Charts(), ", "))
	}
	t := newTranslator(r)
	do(t)
	t.unknown()
	slices.SortStableFunc(t.notes, func(a, b Note) int { return strings.Compare(a.Key, b.Key) })
	return &Translation{Values: t.values, Notes: t.notes, Hand: t.hand}, nil
}
