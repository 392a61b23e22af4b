package chart_test

import (
	"strings"
	"testing"
)

// TestNotes: what users are told after the install.
func TestNotes(t *testing.T) {
	for _, tc := range []struct {
		name, set string
		want, not []string
	}{
		{
			"defaults", "defaults",
			[]string{
				"over TLS", "metawire-collector.metawire.svc:45000",
				"kubectl rollout status -n metawire deployment/metawire-collector", "kubectl rollout status -n metawire deployment/metawire-webhook",
				"helm test -n " + namespace + " " + release, "kubectl rollout restart -n falco daemonset/falco",
				`metadata.annotations.metawire\.dev/status`, `metawire.dev/inject: "false"`, "kube-system is never wired",
				"it stays, for its log", "Another stream.port, tls.source or release name cuts wired Falcos off",
				"kubectl create token -n metawire metawire-viewer --audience metawire.dev",
			},
			[]string{"NOTE:", "WARNING:", "<no value>", "{{", "load_plugins"},
		},
		{
			"everything", "everything",
			[]string{"3 collectors", ".metawire.svc:50051", "stream.authorization: audit", "port 50052 is PLAINTEXT"},
			[]string{"OPEN"},
		},
		{
			"no webhook, no authorization", "the least",
			[]string{
				"OPEN (stream.authorization: disabled)", "Secret metawire-ca in namespace metawire", "collectorHostname: metawire-collector.metawire.svc",
				"collectorPort: 45000", `nodeName: "$${FALCO_K8S_NODE_NAME}"`, "caPEMBundle: ",
			},
			[]string{"PLAINTEXT", "deployment/metawire-webhook", "rollout restart", "kube-system", "wired"},
		},
		{
			"an unknown name", "stream and inventory",
			[]string{
				"EVERY API group, because no known type has the name: widgets.", "grep -w '^widgets'",
				"may read credentials: secrets.", "removeTypes has names that were not in the inventory anyway: nosuch.",
			},
			[]string{"applications"},
		},
		{
			"no stream", "inventory alone",
			[]string{
				"The inventory collects 43 resource types. One of\nthe collectors sends it to\n  https://inventory.example/ingest\n",
				"metawire inventory trigger -n metawire\n", "helm test -n " + namespace + " " + release + " --logs\n",
			},
			[]string{"PLAINTEXT", "OPEN", "SENT", "subscribe", "NOTE:"},
		},
		{
			"custom resources", "everything shipped",
			[]string{"44 resource types, and every custom resource of example.com.", "may read credentials: secrets."},
			[]string{"EVERY", "SENT"},
		},
		{
			"a CronJob", "a CronJob",
			[]string{
				"2 collectors", "43 resource types. It is sent by\ncronjob/metawire-inventory, with ServiceAccount sender, to\n",
				"metawire inventory trigger -n metawire\n", "SENT as they are (inventory.redaction: none)",
			},
			[]string{"NOTE:"},
		},
		{"a CronJob alone", "a CronJob alone", []string{"Metawire 0.1.0: cronjob/metawire-inventory in namespace metawire."}, []string{"collectors", "deployment/"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			notes := renderAll(t)[tc.set].files["NOTES.txt"]
			for _, want := range tc.want {
				if !strings.Contains(notes, want) {
					t.Errorf("the notes do not say %q:\n%s", want, notes)
				}
			}
			for _, not := range tc.not {
				if strings.Contains(notes, not) {
					t.Errorf("the notes say %q:\n%s", not, notes)
				}
			}
		})
	}
	files, _ := mustRender(t, loadChart(t), "addTypes: [secrets]")
	if !strings.Contains(files["NOTES.txt"], "which is off: they have no") {
		t.Errorf("the notes do not say that addTypes has no effect:\n%s", files["NOTES.txt"])
	}
	const alone = "there are alerts, and nothing here has the daemons scraped"
	for values, want := range map[string]bool{
		"monitoring: {prometheusRule: {enabled: true}}":                                  true,
		"monitoring: {prometheusRule: {enabled: true}, serviceMonitor: {enabled: true}}": false,
		"monitoring: {prometheusRule: {enabled: true}, podMonitor: {enabled: true}}":     false,
	} {
		files, _ = mustRender(t, loadChart(t), values)
		if got := strings.Contains(files["NOTES.txt"], alone); got != want {
			t.Errorf("%s: the notes say %q: %t", values, alone, got)
		}
	}
	files, _ = mustRender(t, loadChart(t), "namespaceOverride: other")
	for _, want := range []string{"rollout status -n other", "helm test -n " + namespace, "metawire-collector.other.svc"} {
		if !strings.Contains(files["NOTES.txt"], want) {
			t.Errorf("with namespaceOverride the notes do not say %q:\n%s", want, files["NOTES.txt"])
		}
	}
}
