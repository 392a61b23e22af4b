package version

import "github.com/prometheus/client_golang/prometheus"

// NewMetrics registers a metric that tells which build is running.
func NewMetrics(r prometheus.Registerer) {
	build := Get()
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "metawire_build_info",
		Help: "Always 1; the labels say which build is running.",
	}, []string{"version", "commit", "goversion"})
	info.WithLabelValues(build.Version, build.Commit, build.Go).Set(1)
	r.MustRegister(info)
}
