package stream

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metawire/metawire/collector/fanout"
	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
)

// Metrics are the stream server's.
type Metrics struct {
	events  map[eventKey]prometheus.Counter
	endings *prometheus.CounterVec
	latency prometheus.Histogram
	unnamed prometheus.Counter
}

type eventKey struct {
	kind   relation.Kind
	reason string
}

// NewMetrics registers the stream server's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "metawire_stream_events_total",
		Help: "Events sent, by the object's kind and the reason: Create, Update, Delete.",
	}, []string{"kind", "reason"})
	m := &Metrics{
		events: map[eventKey]prometheus.Counter{},
		endings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metawire_stream_endings_total",
			Help: "Streams that ended, by reason: client_gone, send_failed, drained, max_age.",
		}, []string{"reason"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "metawire_stream_send_latency_seconds",
			Help:    "From an event's arrival from the API server to its sending, per subscriber; first views are not counted.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300},
		}),
		unnamed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metawire_stream_unnamed_subscribers_total",
			Help: "Subscribers that named no node and get nothing.",
		}),
	}
	r.MustRegister(events, m.endings, m.latency, m.unnamed)
	for _, k := range relation.Kinds() {
		for _, reason := range []string{metadata.Create, metadata.Update, metadata.Delete} {
			m.events[eventKey{k, reason}] = events.WithLabelValues(string(k), reason)
		}
	}
	for _, reason := range []string{endGone, endSend, endDrained, endMaxAge} {
		m.endings.WithLabelValues(reason)
	}
	return m
}

// sent counts a message that was handed to gRPC.
func (m *Metrics) sent(msg *fanout.Message) {
	m.events[eventKey{msg.Kind, msg.Reason}].Inc()
	if !msg.Since.IsZero() {
		m.latency.Observe(time.Since(msg.Since).Seconds())
	}
}
