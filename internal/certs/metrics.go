package certs

import (
	"crypto/x509"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tell how long certificates are good for.
type Metrics struct {
	leafExpiry, caExpiry, changing prometheus.Gauge
	changes                        prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		leafExpiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metawire_certificate_expiry_timestamp_seconds",
			Help: "When the certificate that was served last expires, Unix time.",
		}),
		caExpiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metawire_authority_expiry_timestamp_seconds",
			Help: "When the authority that signs expires, Unix time; 0 if it is not ours.",
		}),
		changing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metawire_authority_changing",
			Help: "1 while an old and a new authority are published together.",
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metawire_authority_writes_total",
			Help: "Times that this process wrote the authority's Secret.",
		}),
	}
	r.MustRegister(m.leafExpiry, m.caExpiry, m.changing, m.changes)
	return m
}

func (m *Metrics) leaf(c *x509.Certificate) { m.leafExpiry.Set(float64(c.NotAfter.Unix())) }

func (m *Metrics) authority(c *x509.Certificate, changing bool) {
	m.caExpiry.Set(float64(c.NotAfter.Unix()))
	m.changing.Set(0)
	if changing {
		m.changing.Set(1)
	}
}
