package inventory

import "github.com/prometheus/client_golang/prometheus"

// Metrics are of the runs. What they tell of the last run, the replica that holds
// the Lease tells, whoever made it; the others tell nothing of it.
type Metrics struct {
	runs             *prometheus.CounterVec
	success, running prometheus.Gauge
	duration         prometheus.Gauge
	objects, types   *prometheus.GaugeVec
	bytes, wire      prometheus.Counter
	retries          prometheus.Counter
	spooled          prometheus.Gauge
}

// putOff is the result of a run that was skipped because it is too early: nothing
// is wrong then, while somebody must do something about other reasons.
const putOff = "put_off"

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
			Name: "metawire_inventory_runs_total", Help: "Runs by result: complete, partial, failed, skipped (the endpoint turns this cluster away), put_off (it takes a later run).",
		}, []string{"result"}),
		success:  gauge("last_complete_timestamp_seconds", "When the last complete run ended, Unix time, at the replica that holds the Lease; 0 at the others, and before there was one."),
		running:  gauge("running", "1 while a run goes on."),
		duration: gauge("last_run_duration_seconds", "How long the last run took, at the replica that holds the Lease; 0 at the others, and before there was one."),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_inventory_objects", Help: "Objects of a type that the last run which was not skipped listed, at the replica that holds the Lease.",
		}, []string{"type"}),
		types: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_inventory_types", Help: "Types of the last run that was not skipped, by outcome: ok, forbidden, absent, failed, truncated; at the replica that holds the Lease.",
		}, []string{"outcome"}),
		bytes:   counter("object_bytes_total", "JSON of objects that was sent."),
		wire:    counter("sent_bytes_total", "Bodies that were sent, once each, as they were on the wire."),
		retries: counter("retries_total", "Requests that were sent again."),
		spooled: gauge("spooled_pages", "Pages that wait on disk after the last run."),
	}
	r.MustRegister(m.runs, m.success, m.running, m.duration, m.objects, m.types, m.bytes, m.wire, m.retries, m.spooled)
	for _, result := range []string{string(Complete), string(Partial), string(NotSent), string(Skipped), putOff} {
		m.runs.WithLabelValues(result)
	}
	return m
}

// Ended takes in what came of a run. Inventory.Run calls it; others are to for a
// run that could not begin.
func (m *Metrics) Ended(r *Report) {
	if m == nil {
		return
	}
	result := string(r.Result)
	if r.TooEarly {
		result = putOff
	}
	m.runs.WithLabelValues(result).Inc()
	if r.Result == Complete {
		m.success.Set(float64(r.Ended.Unix()))
	}
	if r.Result != Skipped { // which lists nothing
		m.last(r)
	}
	m.bytes.Add(float64(r.Sent.Bytes))
	m.wire.Add(float64(r.Sent.Wire))
	m.retries.Add(float64(r.Sent.Retries))
	m.spooled.Set(float64(r.Sent.Spooled))
}

// last shows a run as the last one.
func (m *Metrics) last(r *Report) {
	m.duration.Set(r.Ended.Sub(r.Started).Seconds())
	m.objects.Reset()
	outcomes := map[Outcome]int{OK: 0, Forbidden: 0, Absent: 0, Failed: 0, Truncated: 0}
	for i := range r.Types {
		outcomes[r.Types[i].Outcome]++
		m.objects.WithLabelValues(r.Types[i].Name).Set(float64(r.Types[i].Listed))
	}
	for outcome, n := range outcomes {
		m.types.WithLabelValues(string(outcome)).Set(float64(n))
	}
}

// leads takes in what the release tells of the runs before, when this replica
// comes to hold the Lease: days may pass until it makes one of its own.
func (m *Metrics) leads(s Status) {
	if m == nil {
		return
	}
	if !s.LastSuccess.IsZero() {
		m.success.Set(float64(s.LastSuccess.Unix()))
	}
	if s.Report != nil {
		m.last(s.Report)
	}
}

// follows forgets the last run: another replica tells of it from now on. What
// waits on this replica's disk still does.
func (m *Metrics) follows() {
	if m == nil {
		return
	}
	m.success.Set(0)
	m.duration.Set(0)
	m.objects.Reset()
	m.types.Reset()
}
