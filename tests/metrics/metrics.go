// Package metrics knows every metric that the daemons register: it is what the
// reference, the dashboard and the alert rules are held against.
package metrics

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/metawire/metawire/collector"
	"github.com/metawire/metawire/collector/access"
	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/collector/report"
	"github.com/metawire/metawire/collector/source"
	"github.com/metawire/metawire/collector/stream"
	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/version"
	"github.com/metawire/metawire/webhook"
)

// The daemons.
const (
	Collector = "collector"
	Webhook   = "webhook"
)

// Metric is what the daemons say of a metric.
type Metric struct {
	Name    string
	Type    string // counter, gauge or histogram
	Labels  []string
	Help    string
	Unit    string // of its value
	Package string // that registers it, within the project
	Daemons []string
}

// Source is a package with metrics.
type Source struct {
	Package  string // within the project
	Does     string // what its metrics are of
	Daemons  []string
	Register func(prometheus.Registerer)
}

// Sources returns every package with metrics, in the order of the reference.
func Sources() []Source {
	both := []string{Collector, Webhook}
	return []Source{
		{"collector", "Readiness", []string{Collector}, func(r prometheus.Registerer) { collector.NewMetrics(r) }},
		{"collector/source", "Watches of the Kubernetes API", []string{Collector}, func(r prometheus.Registerer) { source.NewMetrics(r) }},
		{"collector/fanout", "Index and subscribers", []string{Collector}, func(r prometheus.Registerer) { fanout.NewHub(fanout.NewMetrics(r), fanout.Options{}) }},
		{"collector/stream", "Streams", []string{Collector}, func(r prometheus.Registerer) { stream.NewMetrics(r) }},
		{"collector/access", "Who may subscribe", []string{Collector}, func(r prometheus.Registerer) { access.NewMetrics(r) }},
		{"collector/report", "Falco pods", []string{Collector}, func(r prometheus.Registerer) { report.NewMetrics(r) }},
		{"collector/inventory", "Inventory", []string{Collector}, func(r prometheus.Registerer) { inventory.NewMetrics(r) }},
		{"webhook", "Webhook", []string{Webhook}, func(r prometheus.Registerer) { webhook.NewMetrics(r) }},
		{"internal/certs", "Certificates", both, func(r prometheus.Registerer) { certs.NewMetrics(r) }},
		{"internal/version", "Build", both, func(r prometheus.Registerer) { version.NewMetrics(r) }},
	}
}

// All returns the metrics of all sources, in their order, by name within one.
func All() ([]Metric, error) {
	var all []Metric
	for _, s := range Sources() {
		found, err := s.metrics()
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", s.Package, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// Runtime returns the names of the metrics about process and Go runtime, which
// both daemons have from Prometheus' own library.
func Runtime() ([]string, error) {
	r := prometheus.NewRegistry()
	if err := register(r, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})); err != nil {
		return nil, err
	}
	families, err := r.Gather()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	return names, nil
}

func register(r prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// metrics registers the metrics and asks them who they are.
func (s Source) metrics() ([]Metric, error) {
	r := &recorder{Registry: prometheus.NewRegistry()}
	s.Register(r)
	types, err := r.types()
	if err != nil {
		return nil, err
	}
	var found []Metric
	for _, c := range r.collectors {
		descs := make(chan *prometheus.Desc)
		go func() {
			c.Describe(descs)
			close(descs)
		}()
		for d := range descs {
			m, err := parse(d)
			if err != nil {
				return nil, err
			}
			m.Type, m.Package, m.Daemons = types[m.Name], s.Package, s.Daemons
			if m.Type == "" {
				m.Type = typeOf(c)
			}
			if m.Type == "" {
				return nil, fmt.Errorf("%s: of which type is a %T without a sample?", m.Name, c)
			}
			m.Unit = unit(m)
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// recorder is a registry that remembers what was registered.
type recorder struct {
	*prometheus.Registry
	collectors []prometheus.Collector
}

// MustRegister implements prometheus.Registerer.
func (r *recorder) MustRegister(all ...prometheus.Collector) {
	r.collectors = append(r.collectors, all...)
	r.Registry.MustRegister(all...)
}

// types returns the types of the metrics that have a sample.
func (r *recorder) types() (map[string]string, error) {
	families, err := r.Gather()
	if err != nil {
		return nil, err
	}
	types := map[string]string{}
	for _, f := range families {
		types[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	return types, nil
}

// typeOf returns the type of a collector whose labels have had no value yet.
func typeOf(c prometheus.Collector) string {
	var t dto.MetricType
	switch c.(type) {
	case *prometheus.CounterVec:
		t = dto.MetricType_COUNTER
	case *prometheus.GaugeVec:
		t = dto.MetricType_GAUGE
	case *prometheus.HistogramVec:
		t = dto.MetricType_HISTOGRAM
	default:
		return ""
	}
	return strings.ToLower(t.String())
}

// parse reads a description, which tells itself only as text.
func parse(d *prometheus.Desc) (Metric, error) {
	const quoted = `("(?:[^"\\]|\\.)*")`
	form := regexp.MustCompile(`^Desc\{fqName: ` + quoted + `, help: ` + quoted + `, (?:unit: ` + quoted + `, )?constLabels: \{\}, variableLabels: \{(.*)\}\}$`)
	parts := form.FindStringSubmatch(d.String())
	if parts == nil {
		return Metric{}, fmt.Errorf("a description of another form: %s", d)
	}
	var m Metric
	for i, to := range []*string{&m.Name, &m.Help} {
		var err error
		if *to, err = strconv.Unquote(parts[i+1]); err != nil {
			return Metric{}, fmt.Errorf("%s: %w", d, err)
		}
	}
	if parts[4] != "" {
		m.Labels = strings.Split(parts[4], ",")
	}
	return m, nil
}

// unit is in the name, by Prometheus' conventions.
func unit(m Metric) string {
	name := strings.TrimSuffix(m.Name, "_total")
	switch {
	case strings.HasSuffix(name, "_timestamp_seconds"):
		return "Unix time"
	case strings.HasSuffix(name, "_seconds"):
		return "seconds"
	case strings.HasSuffix(name, "_bytes"):
		return "bytes"
	case m.Type == "gauge" && strings.HasPrefix(m.Help, "1 ") || strings.HasPrefix(m.Help, "Always 1"):
		return "0 or 1"
	}
	return "count"
}
