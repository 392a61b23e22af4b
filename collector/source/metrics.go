package source

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the source's.
type Metrics struct {
	firstList     *prometheus.GaugeVec
	listed        *prometheus.GaugeVec
	watchRestarts *prometheus.CounterVec
	errors        *prometheus.CounterVec
	refused       *prometheus.GaugeVec
}

// NewMetrics registers the source's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		firstList: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_source_first_list_seconds",
			Help: "How long it took from the start until the kind was listed as a whole.",
		}, []string{"kind"}),
		listed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_source_listed",
			Help: "1 once the kind was listed as a whole, 0 before.",
		}, []string{"kind"}),
		watchRestarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metawire_source_watch_restarts_total",
			Help: "Watches opened again after the kind's first.",
		}, []string{"kind"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metawire_source_errors_total",
			Help: "Failed list and watch requests by reason: unauthorized, forbidden, not_found, expired, api, unreachable.",
		}, []string{"kind", "reason"}),
		refused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_source_refused",
			Help: "1 while the API server refuses the kind (403, 404): what is known of it is missing or out of date.",
		}, []string{"kind"}),
	}
	r.MustRegister(m.firstList, m.listed, m.watchRestarts, m.errors, m.refused)
	for _, k := range Kinds() {
		m.watchRestarts.WithLabelValues(string(k.Kind))
		m.refused.WithLabelValues(string(k.Kind))
		for _, reason := range reasons() {
			m.errors.WithLabelValues(string(k.Kind), reason)
		}
	}
	return m
}
