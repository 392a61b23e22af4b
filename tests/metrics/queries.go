package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// Query is a question of a dashboard's panel.
type Query struct{ Panel, Expr string }

// Queries returns those of a dashboard's file, with its variables filled in, as
// Grafana does it: a namespace, a release and the window of rates.
func Queries(file string, variables map[string]string) ([]Query, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var pairs []string
	for name, value := range variables {
		pairs = append(pairs, "$"+name, value)
	}
	fill := strings.NewReplacer(pairs...)
	var all []Query
	for _, p := range dashboard.Panels {
		for _, t := range p.Targets {
			q := Query{p.Title, fill.Replace(t.Expr)}
			if strings.Contains(q.Expr, "$") {
				return nil, fmt.Errorf("%s: panel %q: no value for a variable of %s", file, p.Title, q.Expr)
			}
			all = append(all, q)
		}
	}
	return all, nil
}

// Series are what an expression selects: a metric, and the labels by which.
type Series struct {
	Metric string
	Labels []string
	Expr   string // that selects them now
}

// Selected returns what the expression selects. It is an error that the
// expression is none, or that a selector names no metric.
func Selected(expr string) ([]Series, error) {
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	var all []Series
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		found := Series{Metric: s.Name, Expr: (&parser.VectorSelector{Name: s.Name, LabelMatchers: s.LabelMatchers}).String()}
		for _, m := range s.LabelMatchers {
			if m.Name != model.MetricNameLabel {
				found.Labels = append(found.Labels, m.Name)
			}
		}
		all = append(all, found)
		return nil
	})
	if slices.ContainsFunc(all, func(s Series) bool { return s.Metric == "" }) {
		return nil, fmt.Errorf("%s: a selector names no metric", expr)
	}
	return all, nil
}

// Known holds every metric by name, those of process and runtime too.
type Known map[string]Metric

// Names returns all that is known.
func Names() (Known, error) {
	known := Known{}
	runtime, err := Runtime()
	if err != nil {
		return nil, err
	}
	for _, name := range runtime {
		known[name] = Metric{Name: name}
	}
	all, err := All()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		known[m.Name] = m
		if m.Type == "histogram" {
			for suffix, extra := range map[string][]string{"_bucket": {"le"}, "_sum": nil, "_count": nil} {
				part := m
				part.Name, part.Labels = m.Name+suffix, append(slices.Clone(m.Labels), extra...)
				known[part.Name] = part
			}
		}
	}
	return known, nil
}

// Check reports which metric or label of the expression no daemon has, beside
// the labels that a target gets.
func (k Known) Check(expr string, target ...string) error {
	selected, err := Selected(expr)
	if err != nil {
		return err
	}
	for _, s := range selected {
		m, ok := k[s.Metric]
		if !ok {
			return fmt.Errorf("%s: no daemon has a metric %q", expr, s.Metric)
		}
		for _, l := range s.Labels {
			if !slices.Contains(m.Labels, l) && !slices.Contains(target, l) {
				return fmt.Errorf("%s: %s has no label %q", expr, s.Metric, l)
			}
		}
	}
	return nil
}
