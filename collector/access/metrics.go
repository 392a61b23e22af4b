package access

import "github.com/prometheus/client_golang/prometheus"

// Metrics are of the decisions about subscribers and of the tickets.
type Metrics struct {
	authorized, refusals, revoked *prometheus.CounterVec
	issued                        prometheus.Counter
	denied                        *prometheus.CounterVec
	undecided                     prometheus.Gauge
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		r.MustRegister(v)
		return v
	}
	m := &Metrics{
		authorized: vec("metawire_stream_authorized_total",
			"Subscribers that may read a node, by what says so: ticket, address, nodeAddress, token; nothing: refused, and served because that is only audited.", "by",
			string(ByTicket), string(ByAddress), string(ByNodeAddress), string(ByToken), string(ByNothing)),
		refusals: vec("metawire_stream_refusals_total",
			"Subscribers that were refused a node, or would be if it were enforced, by reason.", "reason", reasons()...),
		revoked: vec("metawire_stream_revocations_total",
			"Streams whose subscriber lost its leave to read the node, or would have if it were enforced, by reason.", "reason", reasons()...),
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metawire_stream_tickets_issued_total", Help: "Tickets given to wired pods.",
		}),
		denied: vec("metawire_stream_tickets_refused_total",
			"Requests for a ticket that were refused, by reason.", "reason", reasons()...),
		undecided: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metawire_stream_undecided_requests", Help: "Subscribers and requests for a ticket that wait until it is known who they are.",
		}),
	}
	r.MustRegister(m.issued, m.undecided)
	return m
}
