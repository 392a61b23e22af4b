package chart_test

import (
	"strings"
	"testing"
)

// TestRefusedInventory: what makes no sense of an inventory is refused before
// anything is installed, by an error that names the key.
func TestRefusedInventory(t *testing.T) {
	for _, tc := range []struct{ name, values, want string }{
		{"no cluster id", "inventory: {enabled: true, endpoint: https://x}", "/clusterID"},
		{"cluster id in capitals", "{clusterID: Prod, inventory: {enabled: true, endpoint: https://x}}", "/clusterID"},
		{"no endpoint", "{clusterID: x, inventory: {enabled: true}}", "/inventory/endpoint"},
		{"endpoint without scheme", shipping("endpoint: inventory.example"), "/inventory/endpoint"},
		{"endpoint with a password", shipping("endpoint: https://a:b@x"), "/inventory/endpoint"},
		{"endpoint without TLS", shipping("endpoint: http://x"), "inventory.endpoint: http://x has no TLS"},
		{"login without TLS", shipping("loginEndpoint: http://x, credentials: {mode: accessKeys, existingSecret: s}"), "inventory.loginEndpoint: http://x has no TLS"},
		{"unknown key", shipping("credential: {}"), "credential"},
		{"contract", shipping("contract: firefly"), "/inventory/contract"},
		{"mode", shipping("mode: Job"), "/inventory/mode"},
		{"schedule in words", shipping("schedule: daily"), "/inventory/schedule"},
		{"schedule with a zone", shipping("schedule: CRON_TZ=UTC 0 * * *"), "/inventory/schedule"},
		{"no schedule for a CronJob", shipping("mode: CronJob"), "inventory.schedule"},
		{"jitter without unit", shipping("jitter: 5"), "/inventory/jitter"},
		{"jitter of a CronJob", shipping("mode: CronJob, schedule: '@daily', jitter: 5m"), "inventory.jitter has no effect"},
		{"changes of whole runs", shipping("changes: true, contract: runs"), "inventory.changes: true does not go with inventory.contract: runs"},
		{"no runs between", shipping("completeEvery: 0"), "/inventory/completeEvery"},
		{"page", shipping("pageBytes: 1MB"), "/inventory/pageBytes"},
		{"compression", shipping("compression: zstd"), "/inventory/compression"},
		{"redaction", shipping("redaction: false"), "/inventory/redaction"},
		{"releases without Secrets", shipping("helmReleases: true"), "inventory.helmReleases needs Secrets"},
		{"releases, Secrets removed", shipping("helmReleases: true", "addTypes: [secrets], removeTypes: [secrets]"), "inventory.helmReleases needs Secrets"},
		{"custom resources of any group", shipping("customResources: true"), "inventory.customResources: true needs inventory.customResourceGroups"},
		{"groups for nothing", shipping("customResourceGroups: [example.com]"), "inventory.customResourceGroups has no effect"},
		{"a group of Kubernetes", shipping("customResources: true, customResourceGroups: [apps]"), "/inventory/customResourceGroups/0"},
		{"every group", shipping("customResources: true, customResourceGroups: ['*']"), "/inventory/customResourceGroups/0"},
		{"every group of a kind", shipping("customResources: true, customResourceGroups: ['*.example.com']"), "/inventory/customResourceGroups/0"},
		{
			"one type out of a group", shipping("customResources: true, customResourceGroups: [example.com]", "removeTypes: [widgets.example.com]"),
			"removeTypes: widgets.example.com cannot be taken out of inventory.customResourceGroups: example.com",
		},
		{
			"definitions", shipping("customResources: true, customResourceGroups: [example.com]", "removeTypes: [customresourcedefinitions]"),
			"removeTypes: customresourcedefinitions cannot be taken out with inventory.customResources",
		},
		{
			"a known type out of a group", shipping("customResources: true, customResourceGroups: [argoproj.io]", "removeTypes: [rollouts]"),
			"removeTypes: rollouts cannot be taken out of inventory.customResourceGroups: argoproj.io",
		},
		{
			"one group out of every group", shipping("", "addTypes: [widgets], removeTypes: [widgets.example.com]"),
			"removeTypes: widgets.example.com cannot be taken out of addTypes: widgets",
		},
		{"no token", shipping("credentials: {mode: bearer}"), "inventory.credentials.token: "},
		{"no access key", shipping("credentials: {mode: accessKeys, secretKey: s}"), "inventory.credentials.accessKey: "},
		{"no secret key", shipping("credentials: {mode: accessKeys, accessKey: s}"), "inventory.credentials.secretKey: "},
		{"token for nobody", shipping("credentials: {token: hunter2}"), "inventory.credentials.token has no effect"},
		{"token beside a Secret", shipping("credentials: {mode: bearer, token: hunter2, existingSecret: s}"), "inventory.credentials.token has no effect"},
		{"Secret for nobody", shipping("credentials: {existingSecret: s}"), "inventory.credentials.existingSecret has no effect"},
		{"login for nobody", shipping("loginEndpoint: https://x"), "inventory.loginEndpoint has no effect"},
		{"proxy with a password", shipping("proxy: {url: 'http://a:b@x'}"), "/inventory/proxy/url"},
		{"spool without unit", shipping("spool: {size: '128'}"), "/inventory/spool/size"},
		{"another cluster's id", shipping("overrideUniqueClusterId: true"), "inventory.overrideUniqueClusterId has no effect"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := render(loadChart(t), tc.values)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want an error that names %q, got: %v", tc.want, err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a credential: %v", err)
			}
		})
	}
}
