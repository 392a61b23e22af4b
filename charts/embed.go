// Package charts holds the chart that users install, as bytes, so that the
// command line, the tests and the collector use that very chart. It renders
// nothing.
package charts

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"

	"go.yaml.in/yaml/v3"
)

//go:generate go run ./schema -values metawire/values.yaml -constraints schema/constraints.yaml -o metawire/values.schema.json
//go:generate helm-docs --log-level warning --chart-search-root metawire --sort-values-order file --skip-version-footer

// Without "all:" files that begin with _ or . are left out: the templates that
// others include, and .helmignore.
//
//go:embed all:metawire
var files embed.FS

// typesFile is the table of resource types, within the chart.
const typesFile = "files/resource-types.yaml"

// Metawire returns the files of the chart, Chart.yaml at the root. They can
// only be read.
func Metawire() (fs.FS, error) {
	chart, err := fs.Sub(files, "metawire")
	if err != nil {
		return nil, fmt.Errorf("embedded chart: %w", err)
	}
	return chart, nil
}

// ResourceType is a line of the chart's table of resource types.
type ResourceType struct {
	Group    string `yaml:"group"`    // API group; empty is the core group
	Resource string `yaml:"resource"` // the plural, unique in the table
	Kind     string `yaml:"kind"`
	// Streamed types are watched for the stream.
	Streamed bool `yaml:"streamed"`
	// Inventory types are in the default inventory.
	Inventory bool `yaml:"inventory"`
	// Sensitive types hold credentials.
	Sensitive bool `yaml:"sensitive"`
}

// Name returns the type as kubectl writes it: resource.group, or the resource
// alone in the core group.
func (t ResourceType) Name() string {
	if t.Group == "" {
		return t.Resource
	}
	return t.Resource + "." + t.Group
}

// ResourceTypes returns the chart's table of resource types, sorted by group,
// then resource. An unknown key in it is an error that names the key.
func ResourceTypes() ([]ResourceType, error) {
	chart, err := Metawire()
	if err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(chart, typesFile)
	if err != nil {
		return nil, fmt.Errorf("embedded chart: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	var types []ResourceType
	if err := d.Decode(&types); err != nil {
		return nil, fmt.Errorf("embedded chart: %s: %w", typesFile, err)
	}
	return types, nil
}
