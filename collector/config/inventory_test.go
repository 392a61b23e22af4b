package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/strict"
)

// shipping returns a valid configuration that only ships, with more lines in
// its inventory.
func shipping(lines string) string {
	text := `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
clusterID: prod-1
health: {address: ":8081"}
metrics: {address: ":8080"}
stream: {enabled: false}
inventory:
  enabled: true
`
	for key, line := range map[string]string{"endpoint": "endpoint: https://inventory.example/ingest", "resources": "resources: [pods, deployments.apps]", "state": "state: {namespace: n, lease: l, report: r}"} {
		if !strings.HasPrefix(lines, key+":") && !strings.Contains(lines, "\n"+key+":") {
			text += "  " + line + "\n"
		}
	}
	for line := range strings.Lines(lines) {
		text += "  " + line
	}
	return text + "\n"
}

func TestInventoryDefaults(t *testing.T) {
	got, err := Decode([]byte(shipping("")))
	if err != nil {
		t.Fatal(err)
	}
	want := Inventory{
		Enabled: true, Endpoint: "https://inventory.example/ingest", Contract: "objects", Schedule: "*/15 * * * *", TimeZone: "UTC",
		Jitter: strict.Duration(time.Minute), Resources: []string{"pods", "deployments.apps"}, CompleteEvery: 24,
		PageBytes: 1200000, MaxObjectBytes: 1500000, Compression: "gzip", Redaction: Redaction{Mode: "on"},
		Spool: Spool{MaxBytes: 128 << 20}, Credentials: Credentials{Mode: "none"}, State: State{Namespace: "n", Lease: "l", Report: "r"},
	}
	if d := cmp.Diff(want, got.Inventory); d != "" {
		t.Error(d)
	}
}

// TestInventoryKeepsWhatIsSet: every key.
func TestInventoryKeepsWhatIsSet(t *testing.T) {
	got, err := Decode([]byte(shipping(`endpoint: http://inventory.example
insecure: true
contract: runs
loginEndpoint: https://login.example
schedule: "@every 30m"
timeZone: Europe/Berlin
jitter: 0
resources: [secrets]
customResources: true
customResourceGroups: [cert-manager.io, example.com]
helmReleases: true
changes: false
completeEvery: 4
pageBytes: 1Mi
maxObjectBytes: 2000000
compression: none
redaction: {mode: on, secret: {namespace: metawire, name: redaction}}
spool: {directory: /spool, maxBytes: 16Mi}
credentials: {mode: accessKeys, accessKeyFile: /c/a, secretKeyFile: /c/s}
caFile: /ca/ca.crt
state: {namespace: metawire, lease: l, report: r, index: i}
overrideUniqueClusterId: true`)))
	if err != nil {
		t.Fatal(err)
	}
	want := Inventory{
		Enabled: true, Endpoint: "http://inventory.example", Insecure: true, Contract: "runs", LoginEndpoint: "https://login.example",
		Schedule: "@every 30m", TimeZone: "Europe/Berlin", Resources: []string{"secrets"}, CustomResources: true, CustomResourceGroups: []string{"cert-manager.io", "example.com"}, HelmReleases: true,
		CompleteEvery: 4, PageBytes: 1 << 20, MaxObjectBytes: 2000000, Compression: "none",
		Redaction:   Redaction{Mode: "on", Secret: certs.SecretRef{Namespace: "metawire", Name: "redaction"}},
		Spool:       Spool{Directory: "/spool", MaxBytes: 16 << 20},
		Credentials: Credentials{Mode: "accessKeys", AccessKeyFile: "/c/a", SecretKeyFile: "/c/s"}, CAFile: "/ca/ca.crt",
		State:                   State{Namespace: "metawire", Lease: "l", Report: "r", Index: "i"},
		OverrideUniqueClusterID: true,
	}
	if d := cmp.Diff(want, got.Inventory); d != "" {
		t.Error(d)
	}
}

// TestInventoryAccepts: what looks odd and is right.
func TestInventoryAccepts(t *testing.T) {
	for _, lines := range []string{
		"endpoint: http://localhost:8080", "endpoint: http://127.0.0.1:8080/x", "endpoint: 'http://[::1]:80'",
		"schedule: '@hourly'", "schedule: 0 3 * * MON-FRI", "resources: []\ncustomResources: true", "redaction: {mode: none}",
		"credentials: {mode: bearer, tokenFile: t}", "pageBytes: 1\nmaxObjectBytes: 1", "state: {namespace: n, lease: l, report: r}",
	} {
		if _, err := Decode([]byte(shipping(lines))); err != nil {
			t.Errorf("%s: %v", lines, err)
		}
	}
}

// TestInventoryRefuses holds the words that each error must have.
func TestInventoryRefuses(t *testing.T) {
	for lines, want := range map[string]string{
		"endpoint: ''":                       "inventory.endpoint|a URL, such as https://",
		"endpoint: inventory.example":        "inventory.endpoint|inventory.example|https://",
		"endpoint: ftp://inventory.example":  "inventory.endpoint|ftp://|https://",
		"endpoint: http://inventory.example": "inventory.endpoint|inventory.insecure: true",
		"endpoint: https://u:hunter2@x/":     "inventory.endpoint|inventory.credentials",
		"endpoint: https://x/?token=hunter2": "inventory.endpoint|inventory.credentials",
		"contract: firefly":                  `inventory.contract|"firefly"|"objects" or "runs"`,
		"schedule: 15 minutes":               "inventory.schedule|15 minutes|five fields",
		"schedule: ''":                       "inventory.schedule|five fields",
		"schedule: CRON_TZ=UTC 0 * * * *":    "inventory.schedule|inventory.timeZone",
		"timeZone: Mars/Base":                "inventory.timeZone|Mars/Base|Europe/Berlin",
		"timeZone: Local":                    "inventory.timeZone|Local",
		"jitter: -1m":                        "inventory.jitter|-1m0s",
		"resources: []":                      "inventory.resources|at least one",
		"resources: [Pod]":                   "inventory.resources|Pod|deployments.apps",
		"resources: [services/status]":       "inventory.resources|services/status",
		"helmReleases: true":                 "inventory.helmReleases|secrets",
		"contract: runs\nchanges: true":      "inventory.changes|runs",
		"completeEvery: 0":                   "inventory.completeEvery|at least 1",
		"pageBytes: 0":                       "inventory.pageBytes|at least 1",
		"pageBytes: many":                    `line |"many"|128Mi`,
		"maxObjectBytes: 1Ki":                "inventory.maxObjectBytes|1024|inventory.pageBytes",
		"compression: zstd":                  "inventory.compression|zstd|gzip",
		"redaction: {mode: off}":             `inventory.redaction.mode|"off"|"on" or "none"`,
		"redaction: {secret: {name: x}}":     "inventory.redaction.secret|namespace",
		"spool: {directory: d, maxBytes: 1}": "inventory.spool.maxBytes|1|inventory.maxObjectBytes",
		"credentials: {mode: basic}":         "inventory.credentials.mode|basic|bearer",
		"credentials: {mode: bearer}":        "inventory.credentials.tokenFile|required",
		"credentials: {mode: accessKeys}":    "inventory.credentials.accessKeyFile|inventory.credentials.secretKeyFile|required",
		"credentials: {tokenFile: t}":        "inventory.credentials.tokenFile|unless|bearer",
		"credentials: {token: hunter2}":      `line |unknown key "token"`,
		"loginEndpoint: https://x":           "inventory.loginEndpoint|accessKeys",
		"state: {namespace: n}":              "inventory.state.lease|inventory.state.report",
		"state: {lease: l}":                  "inventory.state.namespace",
		"overrideUniqueClusterId: true":      "inventory.overrideUniqueClusterId|runs",
		"schedules: x":                       `line |unknown key "schedules"`,
		"endpoint: x\ncompression: y":        "inventory.endpoint|inventory.compression",
		"state: {}":                          "inventory.state.namespace|Lease",
		"changes: true\nstate: {namespace: n, lease: l, report: r}": "inventory.state.index|inventory.changes",
		"customResources: true\ncustomResourceGroups: ['*']":        "inventory.customResourceGroups|*|cert-manager.io",
		"customResourceGroups: [example.com]":                       "inventory.customResourceGroups|example.com|inventory.customResources",
	} {
		_, err := Decode([]byte(shipping(lines)))
		if err == nil {
			t.Errorf("%s: accepted", lines)
			continue
		}
		for w := range strings.SplitSeq(want, "|") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the error does not say %q: %v", lines, w, err)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells a credential: %v", err)
		}
	}
	for _, id := range []string{"''", "Prod", "a.b", "a b", "a/b"} {
		_, err := Decode([]byte(strings.Replace(shipping(""), "prod-1", id, 1)))
		if err == nil || !strings.Contains(err.Error(), "clusterID: ") {
			t.Errorf("cluster id %s: %v", id, err)
		}
	}
}

// TestDecodeInventory: a single run needs no daemon's keys, and takes the
// environment's.
func TestDecodeInventory(t *testing.T) {
	text := `{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, inventory: {endpoint: "https://x", resources: [pods]}}`
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }
	if _, err := DecodeInventory([]byte(text), getenv); err == nil || !strings.Contains(err.Error(), "clusterID") {
		t.Errorf("without a cluster id: %v", err)
	}
	env = map[string]string{"METAWIRE_CLUSTER_ID": "a", "METAWIRE_ACCESS_KEY": "b", "METAWIRE_SECRET_KEY": "c"}
	got, err := DecodeInventory([]byte(text), getenv)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Credentials{Mode: "accessKeys", AccessKey: "b", SecretKey: "c"}); got.ClusterID != "a" || got.Inventory.Credentials != want {
		t.Errorf("got %q, %+v", got.ClusterID, got.Inventory.Credentials)
	}
}

// TestDryRun: a run that sends nothing needs no name and no endpoint, but what is
// there must be right.
func TestDryRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "collector.yaml")
	for keys, want := range map[string]string{
		"inventory: {resources: [pods]}":                               "",
		"clusterID: A, inventory: {resources: [pods]}":                 "clusterID: ",
		"inventory: {resources: [pods], endpoint: ftp://x}":            "inventory.endpoint: ",
		"inventory: {resources: [pods], endpoint: 'http://x.example'}": "inventory.insecure",
		"inventory: {resources: []}":                                   "inventory.resources: ",
	} {
		if err := os.WriteFile(file, []byte("{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, "+keys+"}"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadDryRun(file, func(string) string { return "" })
		switch {
		case want == "" && (err != nil || got.Inventory.Resources[0] != "pods"):
			t.Errorf("%s: %v", keys, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: the error does not say %q: %v", keys, want, err)
		}
		_, err = LoadInventory(file, func(string) string { return "" })
		for _, field := range []string{"clusterID: ", "inventory.endpoint: "} {
			if err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: to send it is accepted without %s%v", keys, field, err)
			}
		}
	}
}

// TestReadable: a missing or empty file is told by the field that names it.
func TestReadable(t *testing.T) {
	dir := t.TempDir()
	full, empty := filepath.Join(dir, "full"), filepath.Join(dir, "empty")
	for file, text := range map[string]string{full: "hunter2", empty: " \n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, i := range map[string]Inventory{
		"":                                      {Credentials: Credentials{AccessKeyFile: full, SecretKeyFile: full}},
		"inventory.credentials.tokenFile: ":     {Credentials: Credentials{TokenFile: filepath.Join(dir, "token")}},
		"inventory.credentials.secretKeyFile: ": {Credentials: Credentials{AccessKeyFile: full, SecretKeyFile: empty}},
		"inventory.caFile: ":                    {CAFile: filepath.Join(dir, "ca.crt")},
		"inventory.redaction.keyFile: ":         {Redaction: Redaction{KeyFile: filepath.Join(dir, "key")}},
	} {
		err := i.Readable()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
