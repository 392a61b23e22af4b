package certs

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tell how long certificates are good for.
type Metrics struct {
	caExpiry, changing prometheus.Gauge
	changes            prometheus.Counter

	// certificate returns the one that is served; nil before there are any.
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
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
	r.MustRegister(m.caExpiry, m.changing, m.changes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "metawire_certificate_expiry_timestamp_seconds",
		Help: "When the certificate that is served now expires, Unix time; 0 before there is one.",
	}, m.ofLeaf(func(c *x509.Certificate) time.Time { return c.NotAfter })), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "metawire_certificate_not_before_timestamp_seconds",
		Help: "From when on the certificate that is served now is valid, Unix time; 0 before there is one.",
	}, m.ofLeaf(func(c *x509.Certificate) time.Time { return c.NotBefore })))
	return m
}

// ofLeaf looks at the certificate when it is asked for, not when a client is
// served: days may pass between two Falcos, and several certificates.
func (m *Metrics) ofLeaf(date func(*x509.Certificate) time.Time) func() float64 {
	return func() float64 {
		if m.certificate == nil {
			return 0
		}
		c, err := m.certificate(nil)
		if err != nil || c.Leaf == nil {
			return 0
		}
		return float64(date(c.Leaf).Unix())
	}
}

func (m *Metrics) authority(c *x509.Certificate, changing bool) {
	m.caExpiry.Set(float64(c.NotAfter.Unix()))
	m.changing.Set(0)
	if changing {
		m.changing.Set(1)
	}
}
