package inventory

import "github.com/prometheus/client_golang/prometheus"

// Metrics are of the runs.
type Metrics struct {
	runs             *prometheus.CounterVec
	success, running prometheus.Gauge
	duration         prometheus.Gauge
	objects, types   *prometheus.GaugeVec
	bytes, wire      prometheus.Counter
	retries          prometheus.Counter
	spooled          prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "metawire_inventory_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "metawire_inventory_" + name, Help: help})
	}
	m := &Metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metawire_inventory_runs_total", Help: "Runs by result: complete, partial, failed, skipped.",
		}, []string{"result"}),
		success:  gauge("last_complete_timestamp_seconds", "When the last complete run of this replica ended, Unix time; 0 before there was one."),
		running:  gauge("running", "1 while a run goes on."),
		duration: gauge("last_run_duration_seconds", "How long the last run took."),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_inventory_objects", Help: "Objects of a type that the last run listed.",
		}, []string{"type"}),
		types: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_inventory_types", Help: "Types of the last run by outcome: ok, forbidden, absent, failed, truncated.",
		}, []string{"outcome"}),
		bytes:   counter("object_bytes_total", "JSON of objects that was sent."),
		wire:    counter("sent_bytes_total", "Bodies that were sent, once each, as they were on the wire."),
		retries: counter("retries_total", "Requests that were sent again."),
		spooled: gauge("spooled_pages", "Pages that wait on disk after the last run."),
	}
	r.MustRegister(m.runs, m.success, m.running, m.duration, m.objects, m.types, m.bytes, m.wire, m.retries, m.spooled)
	for _, result := range []Result{Complete, Partial, NotSent, Skipped} {
		m.runs.WithLabelValues(string(result))
	}
	return m
}

// ended takes in what came of a run.
func (m *Metrics) ended(r *Report) {
	if m == nil {
		return
	}
	m.runs.WithLabelValues(string(r.Result)).Inc()
	m.duration.Set(r.Ended.Sub(r.Started).Seconds())
	if r.Result == Complete {
		m.success.Set(float64(r.Ended.Unix()))
	}
	m.objects.Reset()
	outcomes := map[Outcome]int{OK: 0, Forbidden: 0, Absent: 0, Failed: 0, Truncated: 0}
	for i := range r.Types {
		outcomes[r.Types[i].Outcome]++
		m.objects.WithLabelValues(r.Types[i].Name).Set(float64(r.Types[i].Listed))
	}
	for outcome, n := range outcomes {
		m.types.WithLabelValues(string(outcome)).Set(float64(n))
	}
	m.bytes.Add(float64(r.Sent.Bytes))
	m.wire.Add(float64(r.Sent.Wire))
	m.retries.Add(float64(r.Sent.Retries))
	m.spooled.Set(float64(r.Sent.Spooled))
}
