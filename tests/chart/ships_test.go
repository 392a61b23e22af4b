package chart_test

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/metawire/metawire/collector/config"
)

// ships are the values of the inventory that a property test varies.
type ships struct {
	cronJob     bool
	contract    string
	changes     bool
	groups      []string // of custom resources
	redaction   any
	credentials string // their mode
	existing    bool   // in a Secret of the user's
	caSecret    bool
	schedule    string // and the like: every text that may be empty
	numbers     bool   // every number that may be empty
}

var drawShips = rapid.Custom(func(t *rapid.T) ships {
	s := ships{
		cronJob:     rapid.Bool().Draw(t, "cronJob"),
		contract:    rapid.SampledFrom([]string{"objects", "runs"}).Draw(t, "contract"),
		groups:      rapid.SampledFrom([][]string{nil, nil, {"argoproj.io"}, {"example.com", "app.k8s.io"}}).Draw(t, "groups"),
		redaction:   rapid.SampledFrom([]any{"on", true, "none"}).Draw(t, "redaction"),
		credentials: rapid.SampledFrom([]string{"none", "bearer", "accessKeys"}).Draw(t, "credentials"),
		existing:    rapid.Bool().Draw(t, "existing"),
		caSecret:    rapid.Bool().Draw(t, "caSecret"),
		schedule:    rapid.SampledFrom([]string{"", "*/15 * * * *", "0 3 * * MON-FRI"}).Draw(t, "schedule"),
		numbers:     rapid.Bool().Draw(t, "numbers"),
	}
	s.changes = s.contract == "objects" && rapid.Bool().Draw(t, "changes")
	if s.cronJob && s.schedule == "" {
		s.schedule = "@hourly"
	}
	return s
})

// values are those of the chart; nothing else is set when the inventory is off.
func (s ships) values(enabled bool) map[string]any {
	v := map[string]any{"enabled": enabled}
	if !enabled {
		return v
	}
	credentials := map[string]any{"mode": s.credentials}
	switch {
	case s.credentials != "none" && s.existing:
		credentials["existingSecret"] = "theirs"
	case s.credentials == "bearer":
		credentials["token"] = canary
	case s.credentials == "accessKeys":
		credentials["accessKey"], credentials["secretKey"] = "user", canary
	}
	v["endpoint"], v["contract"], v["changes"], v["redaction"] = "https://inventory.example/ingest", s.contract, s.changes, s.redaction
	v["mode"] = map[bool]string{false: "Deployment", true: "CronJob"}[s.cronJob]
	v["customResources"], v["customResourceGroups"], v["credentials"] = len(s.groups) > 0, s.groups, credentials
	if s.groups == nil {
		v["customResourceGroups"] = []string{}
	}
	if s.caSecret {
		v["caSecret"] = "authorities"
	}
	if s.schedule != "" {
		v["schedule"], v["timeZone"], v["compression"] = s.schedule, "Europe/Berlin", "none"
		if !s.cronJob {
			v["jitter"] = "5m"
		}
		if s.credentials == "accessKeys" {
			v["loginEndpoint"] = "https://login.example"
		}
	}
	if s.numbers {
		v["completeEvery"], v["pageBytes"], v["maxObjectBytes"] = 7, 1234567, "2Mi"
	}
	return v
}

// canary must be in no object but a Secret.
const canary = "hunter2-canary"

// wantConfig is inventory in the configuration of whoever sends.
func (s ships) wantConfig(inventory map[typeKey]bool) map[string]any {
	resources := []string{}
	for k := range inventory {
		resources = append(resources, k.name())
	}
	slices.Sort(resources)
	want := map[string]any{
		"enabled": true, "endpoint": "https://inventory.example/ingest", "contract": s.contract, "changes": s.changes,
		"resources": resources, "customResources": len(s.groups) > 0,
	}
	if len(s.groups) > 0 {
		want["customResourceGroups"] = s.groups
	}
	redaction := map[string]any{"mode": "none"}
	if s.redaction != "none" {
		redaction = map[string]any{"mode": "on", "secret": map[string]any{"namespace": namespace, "name": "metawire-inventory-redaction"}}
	}
	credentials := map[string]any{"mode": s.credentials}
	switch s.credentials {
	case "bearer":
		credentials["tokenFile"] = "/etc/metawire-credentials/token"
	case "accessKeys":
		credentials["accessKeyFile"], credentials["secretKeyFile"] = "/etc/metawire-credentials/accessKey", "/etc/metawire-credentials/secretKey"
	}
	state := map[string]any{"namespace": namespace, "lease": "metawire-inventory", "report": "metawire-inventory-report"}
	if s.changes {
		state["index"] = "metawire-inventory-index"
	}
	if !s.cronJob {
		want["spool"] = map[string]any{"directory": "/var/lib/metawire/spool", "maxBytes": "128Mi"}
	}
	want["redaction"], want["credentials"], want["state"] = redaction, credentials, state
	if s.caSecret {
		want["caFile"] = "/etc/metawire-inventory-ca/ca.crt"
	}
	for _, key := range []string{"schedule", "timeZone", "compression", "jitter", "loginEndpoint", "completeEvery", "pageBytes", "maxObjectBytes"} {
		if value, ok := s.values(true)[key]; ok {
			want[key] = value
		}
	}
	return want
}

// wantSenderGrants is what the sender of the inventory may do beside reading the
// configured types.
func wantSenderGrants(s settings) grants {
	if !s.inventory {
		return grants{}
	}
	to := " -> metawire/metawire-collector"
	if s.ships.cronJob {
		to = " -> metawire/metawire-inventory"
	}
	own := []string{
		"coordination.k8s.io/leases metawire-inventory get,update",
		"/configmaps metawire-inventory-report get,patch",
	}
	if s.ships.changes {
		var index []string
		for i := range 32 {
			index = append(index, fmt.Sprintf("metawire-inventory-index-%d", i))
		}
		own = append(own, "/configmaps "+strings.Join(index, ",")+" get,patch,delete")
	}
	own = append(own, "/configmaps,events create", "coordination.k8s.io/leases create")
	if s.ships.redaction != "none" {
		own = append(own, "/secrets metawire-inventory-redaction get,update")
	}
	return grants{
		"Role metawire-inventory" + to:        own,
		"ClusterRole metawire-inventory" + to: {"/namespaces kube-system list"},
	}
}

// checkCronJobConfig: what a CronJob's pods load is what the values say, too.
func checkCronJobConfig(t *rapid.T, objs []*unstructured.Unstructured, s settings, inventory map[typeKey]bool) {
	if !s.inventory || !s.ships.cronJob {
		if _, err := find[corev1.ConfigMap](objs, "ConfigMap", "metawire-inventory"); err == nil {
			t.Fatal("a CronJob is configured that is off")
		}
		return
	}
	decode := func(data []byte) (*config.Config, error) {
		return config.DecodeInventory(data, func(string) string { return "" })
	}
	checkFile(t, objs, "metawire-inventory", "collector.yaml", decode, map[string]any{
		"apiVersion": config.APIVersion, "kind": config.Kind, "clusterID": s.clusterID, "inventory": s.ships.wantConfig(inventory),
	})
}

// checkCanary: no credential is anywhere but in a Secret.
func checkCanary(t *rapid.T, objs []*unstructured.Unstructured) {
	for _, o := range objs {
		if text := fmt.Sprint(o.Object); strings.Contains(text, canary) {
			t.Fatalf("%s %s holds a credential", o.GetKind(), o.GetName())
		}
	}
}
