package chart_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/metawire/metawire/tests/metrics"
)

// rule is an alert of a PrometheusRule.
type rule struct {
	Alert               string
	Expr, For           string
	Labels, Annotations map[string]string
}

// ruleFile is what a PrometheusRule and a file of Prometheus have in common.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

// Values that render every alert between them, and those of runs that are far
// apart.
const (
	everyAlert       = `{clusterID: a, inventory: {enabled: true, endpoint: "https://a"}, monitoring: {prometheusRule: {enabled: true}}}`
	alertsOfJobs     = `{clusterID: a, inventory: {enabled: true, endpoint: "https://a", mode: CronJob, schedule: "0 * * * *"}, monitoring: {prometheusRule: {enabled: true, inventoryMaxAge: 3h}}}`
	alertsWithJitter = `{clusterID: a, inventory: {enabled: true, endpoint: "https://a", schedule: "0 * * * *", jitter: 40m}, monitoring: {prometheusRule: {enabled: true, inventoryMaxAge: 1h}}}`
)

// rulesOf renders the PrometheusRule, and writes what Prometheus would be given.
func rulesOf(t *testing.T, values string) (file string, rules []rule) {
	t.Helper()
	_, objs := mustRender(t, loadChart(t), values)
	all := ofKind(objs, "PrometheusRule")
	if len(all) != 1 {
		t.Fatalf("%d PrometheusRules, want one", len(all))
	}
	text, err := sigsyaml.Marshal(all[0].Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var parsed ruleFile
	if err := sigsyaml.UnmarshalStrict(text, &parsed); err != nil {
		t.Fatal(err)
	}
	for _, g := range parsed.Groups {
		rules = append(rules, g.Rules...)
	}
	return file, rules
}

// promtool runs it and returns what it says.
func promtool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// breakage is how an alert is made to fire.
type breakage struct {
	Series map[string]*string
	After  string
	Labels map[string]string
	Also   []string
}

// expectations is testdata/alerts.yaml.
type expectations struct {
	Collector, Webhook string
	Healthy            map[string]string
	Alerts, CronJob    map[string]breakage
	Silent, Jitter     map[string]breakage // in which no alert fires
}

func expected(t *testing.T) expectations {
	t.Helper()
	text, err := os.ReadFile("testdata/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var e expectations
	if err := sigsyaml.UnmarshalStrict(text, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestAlerts: promtool takes the rules; each alert fires on what it is for, and
// no other does; none fires while all is well.
func TestAlerts(t *testing.T) {
	e := expected(t)
	for values, c := range map[string]struct{ alerts, silent map[string]breakage }{
		everyAlert: {e.Alerts, e.Silent}, alertsOfJobs: {e.CronJob, nil}, alertsWithJitter: {nil, e.Jitter},
	} {
		cases := c.alerts
		file, rules := rulesOf(t, values)
		if said := promtool(t, "check", "rules", file); !strings.Contains(said, fmt.Sprintf("%d rules found", len(rules))) {
			t.Errorf("promtool check rules found not the %d rules: %s", len(rules), said)
		}
		byName := map[string]rule{}
		for _, r := range rules {
			byName[r.Alert] = r
		}
		if values == everyAlert {
			tried := map[string]bool{}
			for name := range cases {
				tried[alertOf(name)] = true
			}
			if d := cmp.Diff(slices.Sorted(maps.Keys(byName)), slices.Sorted(maps.Keys(tried))); d != "" {
				t.Errorf("alerts without a test, and tests without an alert (-alerts +tests):\n%s", d)
			}
		}
		tests := []any{e.test("healthy", nil, "", nil)}
		if len(cases) > 0 {
			tests = append(tests, e.test("healthy, later", nil, "28h", nil))
		}
		for name, b := range c.silent {
			tests = append(tests, e.test(name, b.Series, b.After, nil))
		}
		for name, b := range cases {
			alert := alertOf(name)
			t.Run(name, func(t *testing.T) { checkTexts(t, byName[alert], b) })
			want := []firing{{alert, b.Labels}}
			for _, also := range b.Also {
				want = append(want, firing{also, nil})
			}
			tests = append(tests, e.test(name, b.Series, b.After, want))
		}
		text, err := sigsyaml.Marshal(map[string]any{"rule_files": []string{file}, "evaluation_interval": "1m", "tests": tests})
		if err != nil {
			t.Fatal(err)
		}
		testFile := filepath.Join(t.TempDir(), "tests.yaml")
		if err := os.WriteFile(testFile, text, 0o600); err != nil {
			t.Fatal(err)
		}
		promtool(t, "test", "rules", testFile)
	}
}

// alertOf is the alert of a case, which is its name, and after a comma which of
// its ways it is, if there are several.
func alertOf(name string) string {
	alert, _, _ := strings.Cut(name, ", ")
	return alert
}

// firing is an alert with the labels that its expression has.
type firing struct {
	alert  string
	labels map[string]string
}

// test is one of promtool's: the alerts, and they alone, fire after that time.
func (e expectations) test(name string, over map[string]*string, after string, want []firing) map[string]any {
	series := map[string]string{}
	maps.Copy(series, e.Healthy)
	for s, values := range over {
		delete(series, s)
		if values != nil {
			series[s] = *values
		}
	}
	var input []map[string]any
	fill := strings.NewReplacer("{C", "{"+e.Collector, "{W", "{"+e.Webhook)
	for _, s := range slices.Sorted(maps.Keys(series)) {
		input = append(input, map[string]any{"series": fill.Replace(s), "values": series[s]})
	}
	samples := []map[string]any{}
	for _, f := range want {
		all := map[string]string{"alertname": f.alert, "namespace": "metawire", "release": "metawire"} // each has these
		maps.Copy(all, f.labels)
		var labels []string
		for _, l := range slices.Sorted(maps.Keys(all)) {
			labels = append(labels, fmt.Sprintf("%s=%q", l, all[l]))
		}
		samples = append(samples, map[string]any{"labels": "{" + strings.Join(labels, ",") + "}", "value": 1})
	}
	if after == "" {
		after = "3h"
	}
	return map[string]any{
		"name": name, "interval": "1m", "input_series": input,
		"promql_expr_test": []any{map[string]any{
			"expr": `max without (alertstate, severity) (ALERTS{alertstate="firing"})`, "eval_time": after, "exp_samples": samples,
		}},
	}
}

// checkTexts: an alert says how bad it is, what is so and what to read, and
// names no label that it has not.
func checkTexts(t *testing.T, r rule, b breakage) {
	if !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
		t.Errorf("severity %q", r.Labels["severity"])
	}
	for _, a := range []string{"summary", "description", "runbook_url"} {
		if r.Annotations[a] == "" {
			t.Errorf("no annotation %s", a)
		}
		for _, l := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(r.Annotations[a], -1) {
			if _, ok := b.Labels[l[1]]; !ok {
				t.Errorf("%s names the label %s, which the alert has not", a, l[1])
			}
		}
	}
	if !strings.HasPrefix(r.Annotations["summary"], "metawire/metawire: ") {
		t.Errorf("the summary does not say of which release: %s", r.Annotations["summary"])
	}
	if strings.ContainsAny(r.Expr+r.Annotations["summary"]+r.Annotations["description"], "\n") {
		t.Error("a text of several lines")
	}
	if r.For != "" {
		if d, err := time.ParseDuration(strings.Replace(r.For, "1d", "24h", 1)); err != nil || d <= 0 {
			t.Errorf("for: %q", r.For)
		}
	}
}

// TestAlertMetrics: each alert asks for metrics that a daemon has, of this
// release alone; kube-state-metrics is asked where no daemon can tell.
func TestAlertMetrics(t *testing.T) {
	known, err := metrics.Names()
	if err != nil {
		t.Fatal(err)
	}
	for name, label := range map[string]string{
		"kube_cronjob_status_last_successful_time": "cronjob", "kube_cronjob_created": "cronjob", "kube_deployment_status_replicas_unavailable": "deployment",
	} {
		known[name] = metrics.Metric{Labels: []string{label}}
	}
	for _, values := range []string{everyAlert, alertsOfJobs} {
		_, rules := rulesOf(t, values)
		for _, r := range rules {
			if err := known.Check(r.Expr, "namespace", "job"); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			selected, err := metrics.Selected(r.Expr)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range selected {
				if !slices.Contains(s.Labels, "namespace") || !slices.ContainsFunc(s.Labels, func(l string) bool { return l == "job" || l == "cronjob" || l == "deployment" }) {
					t.Errorf("%s: %s is of every release", r.Alert, s.Metric)
				}
			}
		}
	}
}

// TestAlertsAreOnTheDashboard: whoever is woken by an alert sees there what it asks
// for.
func TestAlertsAreOnTheDashboard(t *testing.T) {
	queries, err := metrics.Queries("../../grafana/metawire.json", map[string]string{"namespace": "metawire", "release": "metawire", "__rate_interval": "5m"})
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, q := range queries {
		selected, err := metrics.Selected(q.Expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range selected {
			shown[s.Metric] = true
		}
	}
	_, rules := rulesOf(t, everyAlert)
	for _, r := range rules {
		selected, err := metrics.Selected(r.Expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range selected {
			if !shown[s.Metric] && !strings.HasPrefix(s.Metric, "kube_") {
				t.Errorf("%s: no panel shows %s", r.Alert, s.Metric)
			}
		}
	}
}

// TestRunbooks: each alert has a page, each page an alert, and the list of them
// all.
func TestRunbooks(t *testing.T) {
	const dir = "../../docs/runbooks"
	_, rules := rulesOf(t, everyAlert)
	list, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, r := range rules {
		want = append(want, r.Alert+".md")
		if !strings.HasSuffix(r.Annotations["runbook_url"], "/docs/runbooks/"+r.Alert+".md") {
			t.Errorf("%s: runbook_url %s", r.Alert, r.Annotations["runbook_url"])
		}
		if !strings.Contains(string(list), fmt.Sprintf("| [%s](%s.md) | %s |", r.Alert, r.Alert, r.Labels["severity"])) {
			t.Errorf("README.md has no line of %s with severity %s", r.Alert, r.Labels["severity"])
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		name := filepath.Base(p)
		if name == "README.md" {
			continue
		}
		got = append(got, name)
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		_, diagnosis, _ := strings.Cut(string(text), "\n## Diagnosis\n")
		if first, _, _ := strings.Cut(strings.TrimPrefix(diagnosis, "\n```sh\n"), "\n"); !strings.HasPrefix(first, "metawire ") {
			t.Errorf("%s: the first to do is no command of metawire: %s", name, first)
		}
		for _, part := range []string{"# " + strings.TrimSuffix(name, ".md") + "\n", "\n## Meaning\n", "\n## Impact\n", "\n## Diagnosis\n", "\n## What to do\n"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s has no part %q", name, strings.TrimSpace(part))
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("runbooks (-alerts +pages):\n%s", d)
	}
}
