package collector

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the collector's as a whole.
type Metrics struct {
	ready func() bool // nil before it runs
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "metawire_collector_ready",
		Help: "1 while /readyz is green: there is a certificate, every kind is listed or refused, and no drain has begun.",
	}, func() float64 {
		if m.ready != nil && m.ready() {
			return 1
		}
		return 0
	}))
	return m
}
