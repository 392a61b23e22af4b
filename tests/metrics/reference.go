package metrics

import (
	"fmt"
	"io"
	"strings"
)

const intro = `# Metrics

<!-- Written by make generate from what the daemons register. -->

Both daemons serve Prometheus' text format at ` + "`/metrics`" + `, on port 8080 of their pods and Services (` + "`collector.ports.metrics`, `webhook.ports.metrics`" + `). No label holds the name, UID or address of a pod. Each replica tells of itself, except where the description says otherwise.

With the Prometheus operator, ` + "`monitoring.serviceMonitor.enabled`" + ` (or ` + "`monitoring.podMonitor.enabled`" + `, for a Prometheus that chooses PodMonitors only) has them scraped, ` + "`monitoring.prometheusRule.enabled`" + ` adds the [alerts](runbooks/README.md), and ` + "`monitoring.dashboard.enabled`" + ` has Grafana's sidecar load the [dashboard](../grafana/metawire.json).
`

const outro = `
## Process and Go runtime

Both daemons also have the ` + "`process_*` and `go_*`" + ` metrics of Prometheus' Go library. ` + "`go_gc_gomemlimit_bytes`" + ` is nine tenths of the container's memory limit: a process whose ` + "`process_resident_memory_bytes`" + ` is above it is about to be killed.
`

// WriteReference writes the metrics as a page for people.
func WriteReference(w io.Writer) error {
	all, err := All()
	if err != nil {
		return err
	}
	text := &strings.Builder{}
	text.WriteString(intro)
	for _, s := range Sources() {
		fmt.Fprintf(text, "\n## %s\n\nOf the %s.\n\n| metric | type | labels | unit | what it tells |\n|---|---|---|---|---|\n", s.Does, strings.Join(s.Daemons, " and the "))
		for _, m := range all {
			if m.Package == s.Package {
				fmt.Fprintf(text, "| `%s` | %s | %s | %s | %s |\n", m.Name, m.Type, labelsOf(m), m.Unit, strings.ReplaceAll(m.Help, "|", `\|`))
			}
		}
	}
	text.WriteString(outro)
	_, err = io.WriteString(w, text.String())
	return err
}

func labelsOf(m Metric) string {
	var quoted []string
	for _, l := range m.Labels {
		quoted = append(quoted, "`"+l+"`")
	}
	return strings.Join(quoted, ", ")
}
