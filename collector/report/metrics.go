package report

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metawire/metawire/internal/wiring"
)

// Metrics are the report's.
type Metrics struct {
	pods      *prometheus.GaugeVec
	connected *connected
	events    *prometheus.CounterVec
}

// NewMetrics registers the report's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		pods: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "metawire_falco_pods",
			Help: "Falco pods that are not finished, by state: wired, wired_without_ticket, stood_down, opted_out, pending, waiting, unwired, outdated. Every replica tells of all of them.",
		}, []string{"state"}),
		connected: newConnected(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metawire_falco_pod_events_total",
			Help: "Events on Falco pods by reason (NotWired, WaitingForMetawire, OutdatedAuthority, NoTicket) and result (made, failed).",
		}, []string{"reason", "result"}),
	}
	r.MustRegister(m.pods, m.connected, m.events)
	m.set(nil)
	for _, reason := range wiring.Reasons() {
		for _, result := range []string{"made", "failed"} {
			m.events.WithLabelValues(string(reason), result)
		}
	}
	return m
}

// set sets the number of pods in every state.
func (m *Metrics) set(counts map[wiring.State]int) {
	for _, s := range wiring.States() {
		m.pods.WithLabelValues(string(s)).Set(float64(counts[s]))
	}
}
