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
	events  map[string]map[relation.Kind]prometheus.Counter // by reason
	endings *prometheus.CounterVec
	latency prometheus.Histogram
	unnamed prometheus.Counter
	legacy  prometheus.Gauge
}

// NewMetrics registers the stream server's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "metawire_stream_events_total",
		Help: "Events sent, by the object's kind and the reason: Create, Update, Delete.",
	}, []string{"kind", "reason"})
	m := &Metrics{
		events: map[string]map[relation.Kind]prometheus.Counter{},
		endings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "metawire_stream_endings_total",
			Help: "Streams that ended, by reason: client_gone, send_failed, drained, max_age, refused, busy.",
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
		legacy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metawire_legacy_subscribers",
			Help: "Streams that are open on the listener without TLS, to which an old collector's Service leads.",
		}),
	}
	r.MustRegister(events, m.endings, m.latency, m.unnamed, m.legacy)
	for _, reason := range []string{metadata.Create, metadata.Update, metadata.Delete} {
		m.events[reason] = map[relation.Kind]prometheus.Counter{}
		for _, k := range relation.Kinds() {
			m.events[reason][k] = events.WithLabelValues(string(k), reason)
		}
	}
	for _, reason := range []string{endGone, endSend, endDrained, endMaxAge, endRefused, endBusy} {
		m.endings.WithLabelValues(reason)
	}
	return m
}

// sent counts messages that were handed to gRPC. A first view is counted in
// runs of one kind: counters are shared by all streams.
func (m *Metrics) sent(msgs []fanout.Message) {
	for i := 0; i < len(msgs); {
		first, n := &msgs[i], 0
		for ; i < len(msgs) && msgs[i].Kind == first.Kind && msgs[i].Reason == first.Reason; i++ {
			n++
			if !msgs[i].Since.IsZero() {
				m.latency.Observe(time.Since(msgs[i].Since).Seconds())
			}
		}
		m.events[first.Reason][first.Kind].Add(float64(n))
	}
}
