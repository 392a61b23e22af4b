// Package strict decodes the daemons' configuration files: an unknown key is an
// error that names the key and its line, and what is wrong is told all at once,
// each with its key, its value and what is allowed. It reads no files.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Decode decodes one YAML document into what into points to, which holds the
// defaults.
func Decode(data []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(into); errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	} else if err != nil {
		return readable(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("the file holds more than one YAML document: one is allowed")
	}
	return nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// readable words yaml's errors for people who do not know Go's type names.
func readable(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return err
	}
	lines := make([]string, len(te.Errors))
	for i, e := range te.Errors {
		lines[i] = unknownField.ReplaceAllString(e, `unknown key "$1"`)
	}
	return errors.New(strings.Join(lines, "; "))
}

// Duration is a time.Duration, in the file written with its unit: 90s, 6h, or
// a bare 0.
type Duration time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a duration: must be 0 or a number with its unit, such as 6h or 90s", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Problems collects what is wrong with a configuration.
type Problems []error

// Err returns all problems as one error, nil if there are none.
func (p Problems) Err() error { return errors.Join(p...) }

// Add says what is allowed instead of the key's value.
func (p *Problems) Add(key string, value any, allowed string) {
	*p = append(*p, fmt.Errorf("%s: %v is not allowed: must be %s", key, printable(value), allowed))
}

// NotYet says what is allowed as long as a valid value has no effect.
func (p *Problems) NotYet(key, value, allowed string) {
	*p = append(*p, fmt.Errorf("%s: %q is not yet supported by this version: must be %s", key, value, allowed))
}

// OneOf requires one of the allowed values.
func (p *Problems) OneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.Add(key, value, `"`+strings.Join(allowed, `" or "`)+`"`)
	}
}

// Address requires host:port to listen on; an empty host is every address.
func (p *Problems) Address(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		p.Add(key, value, `host:port, such as ":8081"`)
	}
}

func printable(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}
