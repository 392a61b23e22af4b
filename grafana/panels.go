package main

import "strings"

// row is a line of panels under a title.
type row struct {
	title  string
	height int // of its panels, in units of Grafana's grid
	panels []panel
}

// panel is one question, and the queries that answer it.
type panel struct {
	title       string
	description string // what is good, and where to look when it is not
	kind        kind
	width       int // of 24
	unit        string
	stacked     bool
	negative    bool   // figures may be below zero, and should be seen
	noValue     string // shown when there is no series
	steps       []step // of a number
	queries     []query
}

type query struct{ expr, legend string }

// kind is a type of Grafana's panels.
type kind string

const (
	number kind = "stat"
	series kind = "timeseries"
	bars   kind = "bargauge"
)

// step colors a number from its value on; the first has none.
type step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"`
}

// above is good below the value, and bad from it on.
func above(bad float64) []step { return []step{{"green", nil}, {"red", &bad}} }

// below is bad below the value, and good from it on.
func below(good float64) []step { return []step{{"red", nil}, {"green", &good}} }

// plain has no judgement.
func plain() []step { return []step{{"blue", nil}} }

// of completes queries: C and W are the series of the release's collectors and
// webhooks, D of both.
func of(expr string) string {
	return strings.NewReplacer(
		"{C", `{namespace="$namespace",job="$release-collector"`,
		"{W", `{namespace="$namespace",job="$release-webhook"`,
		"{D", `{namespace="$namespace",job=~"$release-(collector|webhook)"`,
	).Replace(expr)
}

func ask(expr, legend string) query { return query{of(expr), legend} }

// rows is the dashboard: what an operator asks first stands first.
func rows() []row {
	return []row{atAGlance(), falco(), streams(), sources(), admissions(), certificates(), inventory(), processes()}
}

func atAGlance() row {
	return row{"At a glance", 4, []panel{
		{
			title: "Collectors ready", kind: number, width: 4, steps: below(1), noValue: "none scraped",
			description: "Replicas whose /readyz is green. None: no Falco gets metadata.",
			queries:     []query{ask("sum(metawire_collector_ready{C})", "")},
		}, {
			title: "Webhooks ready", kind: number, width: 4, steps: below(1), noValue: "none scraped",
			description: "None: Falco pods that are made now run unwired.",
			queries:     []query{ask("sum(metawire_webhook_ready{W})", "")},
		}, {
			title: "Subscribers", kind: number, width: 4, steps: plain(),
			description: "Open streams over all replicas: about one for each wired Falco pod.",
			queries:     []query{ask("sum(metawire_stream_subscribers{C})", "")},
		}, {
			title: "Falco pods to look at", kind: number, width: 4, steps: above(1),
			description: "Unwired, waiting for Metawire before they start, or trusting none of today's authorities. `metawire check` names them.",
			queries:     []query{ask(`sum(max by (state) (metawire_falco_pods{C,state=~"unwired|waiting|outdated"}))`, "")},
		}, {
			title: "Refused in the last hour", kind: number, width: 4, steps: above(1),
			description: "Subscribers that were refused a node, or would be if it were enforced.",
			queries:     []query{ask("sum(increase(metawire_stream_refusals_total{C}[1h]))", "")},
		}, {
			title: "First certificate expires in", kind: number, width: 4, unit: "s", steps: below(86400),
			description: "Of those that are served now; negative if one has expired. They are renewed when a third of their life is left.",
			queries:     []query{ask("min(metawire_certificate_expiry_timestamp_seconds{D} > 0) - time()", "")},
		},
	}}
}

func falco() row {
	return row{"Falco", 8, []panel{
		{
			title: "Falco pods by wiring", kind: series, width: 12, stacked: true,
			description: "As one replica tells of all of them. Good are wired, opted_out and, for a moment, pending.",
			queries:     []query{ask("max by (state) (metawire_falco_pods{C})", "{{state}}")},
		}, {
			title: "Wired and subscribed", kind: series, width: 12,
			description: "The first two should meet; if not, `metawire check` names those that are missing. Subscribers are everybody: Falcos that are configured by hand, and people who watch, too.",
			queries: []query{
				ask(`sum(max by (state) (metawire_falco_pods{C,state=~"wired|wired_without_ticket"}))`, "wired pods"),
				ask("sum(metawire_falco_pods_connected{C})", "of them subscribed"),
				ask("sum(metawire_stream_subscribers{C})", "subscribers"),
			},
		},
	}}
}

func streams() row {
	return row{"Streams", 8, []panel{
		{
			title: "Subscribers by replica", kind: series, width: 8, stacked: true,
			description: "They spread within hours of a rollout (stream.maxAge).",
			queries:     []query{ask("metawire_stream_subscribers{C}", "{{pod}}")},
		}, {
			title: "Events sent", kind: series, width: 8, unit: "ops", stacked: true,
			queries:     []query{ask("sum by (reason) (rate(metawire_stream_events_total{C}[$__rate_interval]))", "{{reason}}")},
			description: "Over all subscribers. A burst of Creates: subscribers that came, or a rollout.",
		}, {
			title: "Pending at the worst subscriber", kind: series, width: 8,
			description: "Objects that wait to be sent. Zero most of the time; one that only grows is of a Falco that does not read.",
			queries:     []query{ask("metawire_stream_pending_objects_max{C}", "{{pod}}")},
		}, {
			title: "From the API server to the subscriber", kind: series, width: 8, unit: "s",
			description: "How long a change takes within Metawire.",
			queries: []query{
				ask("histogram_quantile(0.5, sum by (le) (rate(metawire_stream_send_latency_seconds_bucket{C}[$__rate_interval])))", "median"),
				ask("histogram_quantile(0.99, sum by (le) (rate(metawire_stream_send_latency_seconds_bucket{C}[$__rate_interval])))", "99 of 100"),
			},
		}, {
			title: "Refusals by reason", kind: series, width: 8, stacked: true,
			description: "For each quarter of an hour. docs/runbooks/MetawireSubscribersRefused.md explains the reasons.",
			queries:     []query{ask("sum by (reason) (increase(metawire_stream_refusals_total{C}[15m]))", "{{reason}}")},
		}, {
			title: "Streams ended by reason", kind: series, width: 8, stacked: true,
			description: "For each quarter of an hour. max_age and drained are on purpose; client_gone is a Falco that ended.",
			queries:     []query{ask("sum by (reason) (increase(metawire_stream_endings_total{C}[15m]))", "{{reason}}")},
		}, {
			title: "Legacy subscribers", kind: series, width: 8,
			description: "On the port without TLS, after a migration: restart these Falcos, then metawire migrate --finish.",
			queries:     []query{ask("metawire_legacy_subscribers{C}", "{{pod}}")},
		}, {
			title: "Authorized by", kind: series, width: 8, stacked: true,
			description: "For each quarter of an hour. ticket: wired pods. nothing: let through by stream.authorization: audit.",
			queries:     []query{ask("sum by (by) (increase(metawire_stream_authorized_total{C}[15m]))", "{{by}}")},
		}, {
			title: "Tickets", kind: series, width: 8, stacked: true,
			description: "For each quarter of an hour: given to the init containers of wired pods, and refused.",
			queries: []query{
				ask("sum(increase(metawire_stream_tickets_issued_total{C}[15m]))", "given"),
				ask("sum(increase(metawire_stream_tickets_refused_total{C}[15m]))", "refused"),
			},
		},
	}}
}

func sources() row {
	return row{"Kubernetes API", 8, []panel{
		{
			title: "Kinds not listed yet, or refused", kind: series, width: 8,
			description: "Zero once a replica is in sync. Refused (403, 404): what is known of the kind is missing or old.",
			queries: []query{
				ask("sum by (pod) (metawire_source_listed{C} == bool 0)", "{{pod}} not listed"),
				ask("sum by (pod) (metawire_source_refused{C})", "{{pod}} refused"),
			},
		}, {
			title: "Failed lists and watches", kind: series, width: 8, stacked: true,
			description: "For each quarter of an hour, by reason. expired now and then is usual.",
			queries:     []query{ask("sum by (reason) (increase(metawire_source_errors_total{C}[15m]))", "{{reason}}")},
		}, {
			title: "Watches opened again", kind: series, width: 8, stacked: true,
			description: "For each quarter of an hour. The API server ends each watch after 5 to 10 minutes.",
			queries:     []query{ask("sum by (kind) (increase(metawire_source_watch_restarts_total{C}[15m]))", "{{kind}}")},
		}, {
			title: "Objects held", kind: bars, width: 12,
			description: "By kind, in one replica.",
			queries:     []query{ask("max by (kind) (metawire_index_objects{C})", "{{kind}}")},
		}, {
			title: "First list took", kind: bars, width: 12, unit: "s",
			description: "From the start until the kind was listed as a whole, in the slowest replica.",
			queries:     []query{ask("max by (kind) (metawire_source_first_list_seconds{C})", "{{kind}}")},
		},
	}}
}

func admissions() row {
	return row{"Webhook", 8, []panel{
		{
			title: "Pods looked at", kind: series, width: 8, stacked: true,
			description: "For each quarter of an hour, by what came of it and why.",
			queries:     []query{ask("sum by (outcome, code) (increase(metawire_webhook_admissions_total{W}[15m]))", "{{outcome}} {{code}}")},
		}, {
			title: "Admitted as they are, after a failure", kind: series, width: 8,
			description: "For each quarter of an hour. Such a Falco runs unwired; restart it once the cause is gone.",
			queries:     []query{ask("sum by (pod) (increase(metawire_webhook_failures_total{W}[15m]))", "{{pod}}")},
		}, {
			title: "Time for a pod", kind: series, width: 8, unit: "s",
			description: "99 of 100 take less.",
			queries:     []query{ask("histogram_quantile(0.99, sum by (le) (rate(metawire_webhook_duration_seconds_bucket{W}[15m])))", "99 of 100")},
		},
	}}
}

func certificates() row {
	return row{"Certificates", 6, []panel{
		{
			title: "Certificates expire in", kind: series, width: 8, unit: "s", negative: true,
			description: "A saw: each tooth is a renewal. Below zero: it has expired, and nobody connects anew.",
			queries:     []query{ask("(metawire_certificate_expiry_timestamp_seconds{D} > 0) - time()", "{{pod}}")},
		}, {
			title: "Left of the life of certificates", kind: series, width: 8, unit: "percentunit", negative: true,
			description: "They are renewed when a third is left; at a quarter it is overdue. More than all: not valid yet.",
			queries:     []query{ask(`((metawire_certificate_expiry_timestamp_seconds{D} > 0) - time()) / (metawire_certificate_expiry_timestamp_seconds{D} - metawire_certificate_not_before_timestamp_seconds{D})`, "{{pod}}")},
		}, {
			title: "Authority expires in", kind: number, width: 4, unit: "s", steps: below(7776000), noValue: "not ours",
			description: "Of tls.source selfManaged; renewed after two thirds of ten years.",
			queries:     []query{ask("min(metawire_authority_expiry_timestamp_seconds{D} > 0) - time()", "")},
		}, {
			title: "Authority is being changed", kind: number, width: 4, steps: above(1),
			description: "1: two are published until no running Falco trusts the old one alone.",
			queries:     []query{ask("max(metawire_authority_changing{D})", "")},
		},
	}}
}

func inventory() row {
	return row{"Inventory", 8, []panel{
		{
			title: "Last complete run", kind: number, width: 6, unit: "s", steps: plain(), noValue: "none, or not enabled",
			description: "How long ago it ended, whichever replica made it.",
			queries:     []query{ask("time() - max(metawire_inventory_last_complete_timestamp_seconds{C} > 0)", "")},
		}, {
			title: "Runs", kind: series, width: 10, stacked: true,
			description: "For each hour, by result. put_off: the endpoint takes a later one. skipped: it turns this cluster away.",
			queries:     []query{ask("sum by (result) (increase(metawire_inventory_runs_total{C}[1h]))", "{{result}}")},
		}, {
			title: "Duration of the last run", kind: series, width: 8, unit: "s",
			description: "At the replica that holds the Lease now.",
			queries:     []query{ask("metawire_inventory_last_run_duration_seconds{C} > 0", "{{pod}}")},
		}, {
			title: "Objects listed", kind: bars, width: 8,
			description: "By the last run, by type: the ten with the most.",
			queries:     []query{ask("topk(10, max by (type) (metawire_inventory_objects{C}))", "{{type}}")},
		}, {
			title: "Types by outcome", kind: series, width: 8, stacked: true,
			description: "Of the last run, as the replica that holds the Lease tells. forbidden and failed are missing from it.",
			queries:     []query{ask("max by (outcome) (metawire_inventory_types{C})", "{{outcome}}")},
		}, {
			title: "Bytes", kind: series, width: 8, unit: "bytes",
			description: "For each hour: objects as JSON, and what went over the wire.",
			queries: []query{
				ask("sum(increase(metawire_inventory_object_bytes_total{C}[1h]))", "JSON"),
				ask("sum(increase(metawire_inventory_sent_bytes_total{C}[1h]))", "sent"),
			},
		}, {
			title: "Sent again, and waiting on disk", kind: series, width: 24,
			description: "Requests for each hour that needed another try, and pages that could not be delivered yet.",
			queries: []query{
				ask("sum(increase(metawire_inventory_retries_total{C}[1h]))", "sent again"),
				ask("max(metawire_inventory_spooled_pages{C})", "pages on disk"),
			},
		},
	}}
}

func processes() row {
	return row{"Processes", 8, []panel{
		{
			title: "Memory", kind: series, width: 8, unit: "bytes",
			description: "Resident. A collector's grows with the pods of the cluster.",
			queries:     []query{ask("process_resident_memory_bytes{D}", "{{pod}}")},
		}, {
			title: "Memory, of nine tenths of the limit", kind: series, width: 8, unit: "percentunit",
			description: "From 100% on the process is about to be killed. Near zero without a limit.",
			queries:     []query{ask("process_resident_memory_bytes{D} / go_gc_gomemlimit_bytes{D}", "{{pod}}")},
		}, {
			title: "CPU", kind: series, width: 8, unit: "cores",
			description: "Cores in use.",
			queries:     []query{ask("rate(process_cpu_seconds_total{D}[$__rate_interval])", "{{pod}}")},
		}, {
			title: "Versions", kind: bars, width: 12,
			description: "Replicas by version. More than one for longer than a rollout: something holds it up.",
			queries:     []query{ask("count by (version) (metawire_build_info{D})", "{{version}}")},
		}, {
			title: "Running for", kind: series, width: 12, unit: "s",
			description: "Since each process began; a fall is a restart.",
			queries:     []query{ask("time() - process_start_time_seconds{D}", "{{pod}}")},
		},
	}}
}
