package webhook

import "github.com/prometheus/client_golang/prometheus"

// Metrics tell what the webhook did.
type Metrics struct {
	admissions *prometheus.CounterVec
	failures   prometheus.Counter
	duration   prometheus.Histogram

	ready func() bool // nil before it runs
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metawire_webhook_admissions_total",
			Help: "Pods that the webhook looked at, by what came of it and why.",
		}, []string{"outcome", "code"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metawire_webhook_failures_total",
			Help: "Pods that were admitted as they are because the webhook could not look at them.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "metawire_webhook_duration_seconds",
			Help:    "How long the webhook took to look at a pod.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
		}),
	}
	r.MustRegister(m.admissions, m.failures, m.duration, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "metawire_webhook_ready",
		Help: "1 while /readyz is green: there is a certificate that the API server trusts, the collectors' Service is known, and the end has not begun.",
	}, func() float64 {
		if m.ready != nil && m.ready() {
			return 1
		}
		return 0
	}))
	return m
}
