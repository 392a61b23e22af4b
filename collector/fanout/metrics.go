package fanout

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/metawire/metawire/collector/relation"
)

// Metrics are the hub's; its gauges are read from the hub when scraped.
type Metrics struct {
	encodings, evicted prometheus.Counter

	subscribers, pendingSum, pendingMax, objects, tombstones *prometheus.Desc

	hub *Hub
}

// NewMetrics registers the hub's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		encodings: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metawire_stream_encodings_total",
			Help: "Event bodies encoded: one per object version, whatever the number of subscribers.",
		}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metawire_stream_tombstones_evicted_total",
			Help: "Tombstones dropped before their time because there were too many: a subscriber that was away may keep what they told of.",
		}),
		subscribers: prometheus.NewDesc("metawire_stream_subscribers", "Subscribers that receive a node's metadata.", nil, nil),
		pendingSum: prometheus.NewDesc("metawire_stream_pending_objects",
			"Objects that wait to be sent, over all subscribers.", nil, nil),
		pendingMax: prometheus.NewDesc("metawire_stream_pending_objects_max",
			"Objects that wait to be sent to the subscriber with the most of them.", nil, nil),
		objects: prometheus.NewDesc("metawire_index_objects", "Objects held, by kind.", []string{"kind"}, nil),
		tombstones: prometheus.NewDesc("metawire_stream_tombstones",
			"Objects that left a node and are remembered for its next subscriber.", nil, nil),
	}
	r.MustRegister(m.encodings, m.evicted, m)
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.subscribers, m.pendingSum, m.pendingMax, m.objects, m.tombstones} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	if m.hub == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	s := m.hub.stats()
	gauge(m.subscribers, s.subscribers)
	gauge(m.pendingSum, s.pendingSum)
	gauge(m.pendingMax, s.pendingMax)
	gauge(m.tombstones, s.tombstones)
	for kind, n := range s.objects {
		gauge(m.objects, n, string(kind))
	}
}

// stats are the hub's figures at one moment.
type stats struct {
	subscribers, pendingSum, pendingMax, tombstones int
	objects                                         map[relation.Kind]int
}

func (h *Hub) stats() stats {
	s := stats{objects: map[relation.Kind]int{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range append(relation.Kinds(), relation.EndpointSlice) {
		s.objects[k] = h.index.Len(k)
	}
	for _, n := range h.nodes {
		s.tombstones += n.tombstones.len()
		s.subscribers += len(n.subscribers)
		for sub := range n.subscribers {
			s.pendingSum += sub.backlog()
			s.pendingMax = max(s.pendingMax, sub.backlog())
		}
	}
	return s
}
