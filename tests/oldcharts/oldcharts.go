// Package oldcharts holds stand-ins for the charts that Metawire succeeds: with
// their names, objects, values and hooks, written from what is known of them.
package oldcharts

import (
	"embed"
	"fmt"
	"io/fs"
	"path"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
)

// The charts.
const (
	Metacollector = "k8s-metacollector"
	Firefly       = "firefly-k8s-collector"
	Infralight    = "infralight-k8s-collector"
	// Falco has the Metacollector as a subchart, if collectors.kubernetes.enabled.
	Falco = "falco"
)

//go:embed all:k8s-metacollector all:firefly-k8s-collector all:infralight-k8s-collector all:falco
var files embed.FS

// Load returns a chart.
func Load(name string) (*chart.Chart, error) {
	c, err := load(name)
	if err != nil || name != Falco {
		return c, err
	}
	collector, err := load(Metacollector)
	if err == nil {
		c.AddDependency(collector)
	}
	return c, err
}

func load(name string) (*chart.Chart, error) {
	var all []*loader.BufferedFile
	err := fs.WalkDir(files, name, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, file)
		all = append(all, &loader.BufferedFile{Name: file[len(name)+1:], Data: data})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("old chart %s: %w", path.Base(name), err)
	}
	c, err := loader.LoadFiles(all)
	if err != nil {
		return nil, fmt.Errorf("old chart %s: %w", name, err)
	}
	return c, nil
}
