package values_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/migrate/release"
	"github.com/metawire/metawire/migrate/values"
)

// The old charts' defaults, as far as they have been published.
const (
	metacollectorDefaults = `
replicaCount: 1
image: {registry: docker.io, repository: falcosecurity/k8s-metacollector, tag: "", pullPolicy: IfNotPresent, pullSecrets: []}
nameOverride: ""
fullnameOverride: ""
namespaceOverride: ""
serviceAccount: {create: true, annotations: {}, name: ""}
podAnnotations: {}
podLabels: {}
podSecurityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000}
containerSecurityContext: {capabilities: {drop: [ALL]}}
service:
  create: true
  type: ClusterIP
  ports:
    metrics: {port: 8080, targetPort: metrics, protocol: TCP}
    health-probe: {port: 8081, targetPort: health-probe, protocol: TCP}
    broker-grpc: {port: 45000, targetPort: broker-grpc, protocol: TCP}
serviceMonitor: {create: false, path: /metrics, labels: {}, interval: 15s, scheme: http, tlsConfig: {}, scrapeTimeout: 10s, relabelings: [], targetLabels: []}
resources: {}
nodeSelector: {}
tolerations: []
affinity: {}
healthChecks:
  livenessProbe: {httpGet: {path: /healthz, port: 8081}, initialDelaySeconds: 45, timeoutSeconds: 5, periodSeconds: 15}
  readinessProbe: {httpGet: {path: /readyz, port: 8081}, initialDelaySeconds: 30, timeoutSeconds: 5, periodSeconds: 15}
grafana: {dashboards: {enabled: false, configMaps: {collector: {name: k8s-metacollector-grafana-dashboard, namespace: "", folder: ""}}}}
`
	fireflyDefaults = `
clusterId: default
overrideUniqueClusterId: false
schedule: "*/15 * * * *"
accessKey: null
secretKey: null
existingFireFlyCredentialsSecret: ""
existingFireFlyArgocdCredentialsSecret: ""
image: {repository: infralightio/k8s-collector, pullPolicy: Always}
offBoarderImage: {repository: infralightio/k8-collector-offboarder, pullPolicy: Always}
argocd: {enabled: false, token: "", domain: ""}
serviceAccount: {name: infralight-service-account, annotations: {}}
clusterRole: {name: infralight-role}
resources:
  requests: {cpu: "1.0", memory: 512Mi, ephemeralStorage: 256Mi}
  limits: {cpu: "1.0", memory: 2048Mi, ephemeralStorage: 512Mi}
podSecurityContext: {}
securityContext: {}
tolerations: []
nodeSelector: {}
apiEndpoint: ""
loginEndpoint: ""
appApiEndpoint: ""
isProduction: "true"
fetchEverything: true
removeTypes: []
addTypes: []
collectSecrets: false
`
	infralightDefaults = `
clusterId: default
schedule: "*/15 * * * *"
apiEndpoint: null
accessKey: null
secretKey: null
image: {repository: infralightio/k8s-collector, pullPolicy: Always}
serviceAccount: {name: infralight-service-account, annotations: {}}
clusterRole: {name: infralight-role}
resources: {requests: {cpu: "1.0", memory: 512Mi}, limits: {cpu: "1.0", memory: 2048Mi}}
collectSecrets: false
collectEvents: false
collectArgoApplications: true
overrideUniqueClusterId: false
fetchEverything: true
`
)

var defaultsOf = map[string]string{values.Metacollector: metacollectorDefaults, values.Firefly: fireflyDefaults, values.Infralight: infralightDefaults}

func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// releaseOf is a release of an old chart with what a user gave.
func releaseOf(t testing.TB, chart, user string) values.Release {
	t.Helper()
	r := values.Release{
		Name: "old", Namespace: "ns", Chart: chart, Version: "1.0.0", Defaults: decode(t, defaultsOf[chart]), User: decode(t, user),
		Types: map[string]bool{}, Credentials: "credentials",
		Served: map[string][]string{"pods": {""}, "widgets": {"example.org"}, "gadgets": {"a.example.org", "b.example.org"}, "applications": {"argoproj.io"}},
	}
	known, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range known {
		r.Types[k.Name()] = k.Inventory
	}
	return r
}

func translate(t testing.TB, r values.Release) *values.Translation {
	t.Helper()
	got, err := values.Translate(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// get returns the new value at a key.
func get(v map[string]any, key string) any {
	var at any = v
	for k := range strings.SplitSeq(key, ".") {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[k]
	}
	return at
}

func noteOf(t *testing.T, tr *values.Translation, key string) values.Note {
	t.Helper()
	i := slices.IndexFunc(tr.Notes, func(n values.Note) bool { return n.Key == key })
	if i < 0 {
		t.Fatalf("nothing is said of %s: %+v", key, tr.Notes)
	}
	return tr.Notes[i]
}

// one is an old value that is not its chart's default, and what becomes of it.
type one struct {
	user    string // the value, as YAML
	key     string // of the note
	outcome values.Outcome
	to      map[string]any // new values; for others the reason counts
}

// everyKey is every key of the old charts.
var everyKey = map[string][]one{
	values.Metacollector: {
		{`replicaCount: 3`, "replicaCount", values.Mapped, map[string]any{"collector.replicas": int64(3)}},
		{`image: {registry: mirror.example}`, "image.registry", values.Mapped, map[string]any{"image.repository": "mirror.example/metawire/metawire"}},
		{`image: {repository: mine/collector}`, "image.repository", values.Dropped, nil},
		{`image: {tag: "0.1.0"}`, "image.tag", values.Dropped, nil},
		{`image: {pullPolicy: Always}`, "image.pullPolicy", values.Mapped, map[string]any{"image.pullPolicy": "Always"}},
		{`image: {pullSecrets: [{name: s}]}`, "image.pullSecrets", values.Mapped, map[string]any{"imagePullSecrets": []any{map[string]any{"name": "s"}}}},
		{`nameOverride: n`, "nameOverride", values.Dropped, nil},
		{`fullnameOverride: n`, "fullnameOverride", values.Dropped, nil},
		{`namespaceOverride: n`, "namespaceOverride", values.Dropped, nil},
		{`serviceAccount: {create: false, name: mine}`, "serviceAccount.create", values.Mapped, map[string]any{"collector.serviceAccount.create": false, "collector.serviceAccount.name": "mine"}},
		{`serviceAccount: {name: mine}`, "serviceAccount.name", values.Dropped, map[string]any{"collector.serviceAccount.name": nil}},
		{`serviceAccount: {annotations: {a: b}}`, "serviceAccount.annotations", values.Mapped, map[string]any{"collector.serviceAccount.annotations.a": "b"}},
		{`podAnnotations: {a: b}`, "podAnnotations", values.Mapped, map[string]any{"collector.podAnnotations.a": "b"}},
		{`podLabels: {a: b}`, "podLabels", values.Mapped, map[string]any{"collector.podLabels.a": "b"}},
		{`podSecurityContext: {runAsUser: 2000}`, "podSecurityContext", values.Mapped, map[string]any{"collector.podSecurityContext.runAsUser": float64(2000)}},
		{`containerSecurityContext: {readOnlyRootFilesystem: true}`, "containerSecurityContext", values.Mapped, map[string]any{"collector.containerSecurityContext.readOnlyRootFilesystem": true}},
		{`service: {create: false}`, "service.create", values.Dropped, nil},
		{`service: {type: NodePort}`, "service.type", values.Dropped, nil},
		{`service: {ports: {broker-grpc: {port: 45001}}}`, "service.ports", values.Dropped, nil},
		{`serviceMonitor: {create: true}`, "serviceMonitor.create", values.Mapped, map[string]any{"monitoring.serviceMonitor.enabled": true}},
		{`serviceMonitor: {create: true, labels: {a: b}}`, "serviceMonitor.labels", values.Mapped, map[string]any{"monitoring.serviceMonitor.labels.a": "b"}},
		{`serviceMonitor: {create: true, interval: 1m}`, "serviceMonitor.interval", values.Mapped, map[string]any{"monitoring.serviceMonitor.interval": "1m"}},
		{`serviceMonitor: {create: true, scrapeTimeout: 5s}`, "serviceMonitor.scrapeTimeout", values.Mapped, map[string]any{"monitoring.serviceMonitor.scrapeTimeout": "5s"}},
		{`serviceMonitor: {create: true, relabelings: [{action: keep}]}`, "serviceMonitor.relabelings", values.Mapped, map[string]any{"monitoring.serviceMonitor.relabelings": []any{map[string]any{"action": "keep"}}}},
		{`serviceMonitor: {create: true, targetLabels: [a]}`, "serviceMonitor.targetLabels", values.Mapped, map[string]any{"monitoring.serviceMonitor.targetLabels": []any{"a"}}},
		{`serviceMonitor: {create: true, path: /m}`, "serviceMonitor.path", values.Dropped, nil},
		{`serviceMonitor: {create: true, scheme: https}`, "serviceMonitor.scheme", values.Dropped, nil},
		{`serviceMonitor: {create: true, tlsConfig: {insecureSkipVerify: true}}`, "serviceMonitor.tlsConfig", values.Dropped, nil},
		{`serviceMonitor: {create: true, namespace: monitoring}`, "serviceMonitor.namespace", values.Mapped, map[string]any{"monitoring.serviceMonitor.namespace": "monitoring"}},
		{`serviceMonitor: {interval: 1m}`, "serviceMonitor", values.Dropped, map[string]any{"monitoring": nil}},
		{`resources: {limits: {memory: 1Gi}}`, "resources", values.Mapped, map[string]any{"collector.resources.limits.memory": "1Gi"}},
		{`nodeSelector: {a: b}`, "nodeSelector", values.Mapped, map[string]any{"collector.nodeSelector.a": "b"}},
		{`tolerations: [{operator: Exists}]`, "tolerations", values.Mapped, map[string]any{"collector.tolerations": []any{map[string]any{"operator": "Exists"}}}},
		{`affinity: {nodeAffinity: {}}`, "affinity", values.Mapped, map[string]any{"collector.affinity": map[string]any{"nodeAffinity": map[string]any{}}}},
		{`healthChecks: {livenessProbe: {initialDelaySeconds: 90}}`, "healthChecks.livenessProbe.initialDelaySeconds", values.Mapped, map[string]any{"collector.livenessProbe.initialDelaySeconds": int64(90)}},
		{`healthChecks: {livenessProbe: {timeoutSeconds: 9}}`, "healthChecks.livenessProbe.timeoutSeconds", values.Mapped, map[string]any{"collector.livenessProbe.timeoutSeconds": int64(9)}},
		{`healthChecks: {livenessProbe: {periodSeconds: 9}}`, "healthChecks.livenessProbe.periodSeconds", values.Mapped, map[string]any{"collector.livenessProbe.periodSeconds": int64(9)}},
		{`healthChecks: {livenessProbe: {httpGet: {port: 9}}}`, "healthChecks.livenessProbe.httpGet", values.Dropped, nil},
		{`healthChecks: {readinessProbe: {initialDelaySeconds: 90}}`, "healthChecks.readinessProbe.initialDelaySeconds", values.Mapped, map[string]any{"collector.readinessProbe.initialDelaySeconds": int64(90)}},
		{`healthChecks: {readinessProbe: {timeoutSeconds: 9}}`, "healthChecks.readinessProbe.timeoutSeconds", values.Mapped, map[string]any{"collector.readinessProbe.timeoutSeconds": int64(9)}},
		{`healthChecks: {readinessProbe: {periodSeconds: 9}}`, "healthChecks.readinessProbe.periodSeconds", values.Mapped, map[string]any{"collector.readinessProbe.periodSeconds": int64(9)}},
		{`healthChecks: {readinessProbe: {httpGet: {path: /}}}`, "healthChecks.readinessProbe.httpGet", values.Dropped, nil},
		{`grafana: {dashboards: {enabled: true}}`, "grafana.dashboards.enabled", values.Mapped, map[string]any{"monitoring.dashboard.enabled": true}},
		{`grafana: {dashboards: {enabled: true, configMaps: {collector: {namespace: grafana}}}}`, "grafana.dashboards.configMaps.collector.namespace", values.Mapped, map[string]any{"monitoring.dashboard.namespace": "grafana"}},
		{`grafana: {dashboards: {enabled: true, configMaps: {collector: {folder: Falco}}}}`, "grafana", values.Dropped, nil},
	},
	values.Firefly: {
		{`clusterId: mine`, "clusterId", values.Mapped, map[string]any{"clusterID": "mine"}},
		{`overrideUniqueClusterId: true`, "overrideUniqueClusterId", values.Dropped, map[string]any{"inventory.overrideUniqueClusterId": nil}},
		{`schedule: "0 * * * *"`, "schedule", values.Mapped, map[string]any{"inventory.schedule": "0 * * * *"}},
		{`accessKey: canary`, "accessKey", values.Mapped, map[string]any{"inventory.credentials.existingSecret": "credentials"}},
		{`secretKey: canary`, "secretKey", values.Mapped, map[string]any{"inventory.credentials.mode": "accessKeys"}},
		{`existingFireFlyCredentialsSecret: mine`, "existingFireFlyCredentialsSecret", values.Mapped, nil},
		{`existingFireFlyArgocdCredentialsSecret: mine`, "existingFireFlyArgocdCredentialsSecret", values.Dropped, nil},
		{`image: {repository: mine/collector}`, "image.repository", values.Dropped, map[string]any{"image": nil}},
		{`image: {repository: mirror.example/collector}`, "image.repository", values.Mapped, map[string]any{"image.repository": "mirror.example/metawire/metawire"}},
		{`image: {pullPolicy: Never}`, "image.pullPolicy", values.Mapped, map[string]any{"image.pullPolicy": "Never"}},
		{`image: {tag: "1"}`, "image.tag", values.Dropped, nil},
		{`offBoarderImage: {tag: "1"}`, "offBoarderImage", values.Dropped, nil},
		{`onBoarder: {image: x}`, "onBoarder", values.Dropped, nil},
		{`argocd: {enabled: true, token: canary}`, "argocd", values.Dropped, nil},
		{`serviceAccount: {name: mine}`, "serviceAccount.name", values.Dropped, nil},
		{`serviceAccount: {annotations: {a: b}}`, "serviceAccount.annotations", values.Mapped, map[string]any{"inventory.serviceAccount.annotations.a": "b"}},
		{`clusterRole: {name: mine}`, "clusterRole", values.Dropped, nil},
		{`resources: {limits: {memory: 3Gi}}`, "resources", values.Mapped, map[string]any{"inventory.resources.limits.memory": "3Gi", "inventory.resources.limits.ephemeralStorage": nil}},
		{`podSecurityContext: {fsGroup: 1}`, "podSecurityContext", values.Mapped, map[string]any{"collector.podSecurityContext.fsGroup": float64(1)}},
		{`securityContext: {runAsUser: 1}`, "securityContext", values.Mapped, map[string]any{"collector.containerSecurityContext.runAsUser": float64(1)}},
		{`tolerations: [{operator: Exists}]`, "tolerations", values.Mapped, map[string]any{"collector.tolerations": []any{map[string]any{"operator": "Exists"}}}},
		{`nodeSelector: {a: b}`, "nodeSelector", values.Mapped, map[string]any{"collector.nodeSelector.a": "b"}},
		{`apiEndpoint: https://api.example/`, "apiEndpoint", values.Mapped, map[string]any{"inventory.endpoint": "https://api.example"}},
		{`apiEndpoint: https://gateway.firefly.ai/api`, "apiEndpoint", values.Mapped, map[string]any{"inventory.endpoint": "https://gateway.firefly.ai"}},
		{`loginEndpoint: https://login.example`, "loginEndpoint", values.Mapped, map[string]any{"inventory.loginEndpoint": "https://login.example"}},
		{`appApiEndpoint: https://app.example`, "appApiEndpoint", values.Dropped, nil},
		{`isProduction: "false"`, "isProduction", values.Dropped, nil},
		{`fetchEverything: false`, "fetchEverything", values.Dropped, map[string]any{"inventory.customResources": nil}},
		{`removeTypes: [pods, deployments]`, "removeTypes", values.Mapped, map[string]any{"removeTypes": []any{"deployments.apps", "pods"}}},
		{`addTypes: [widgets, gadgets, secrets]`, "addTypes", values.Mapped, map[string]any{"addTypes": []any{"gadgets.a.example.org", "gadgets.b.example.org", "secrets", "widgets.example.org"}, "inventory.helmReleases": true}},
		{`collectSecrets: true`, "collectSecrets", values.Mapped, map[string]any{"addTypes": []any{"secrets"}, "inventory.helmReleases": true}},
	},
	values.Infralight: {
		{`clusterId: mine`, "clusterId", values.Mapped, map[string]any{"clusterID": "mine"}},
		{`schedule: "0 * * * *"`, "schedule", values.Mapped, map[string]any{"inventory.schedule": "0 * * * *"}},
		{`apiEndpoint: https://api.example`, "apiEndpoint", values.Mapped, map[string]any{"inventory.endpoint": "https://api.example"}},
		{`accessKey: canary`, "accessKey", values.Mapped, nil},
		{`secretKey: canary`, "secretKey", values.Mapped, nil},
		{`image: {tag: "1"}`, "image.tag", values.Dropped, nil},
		{`image: {repository: a/b}`, "image.repository", values.Dropped, nil},
		{`image: {pullPolicy: Never}`, "image.pullPolicy", values.Mapped, map[string]any{"image.pullPolicy": "Never"}},
		{`serviceAccount: {name: mine}`, "serviceAccount.name", values.Dropped, nil},
		{`serviceAccount: {annotations: {a: b}}`, "serviceAccount.annotations", values.Mapped, map[string]any{"inventory.serviceAccount.annotations.a": "b"}},
		{`clusterRole: {name: mine}`, "clusterRole", values.Dropped, nil},
		{`resources: {requests: {cpu: 100m}}`, "resources", values.Mapped, map[string]any{"inventory.resources.requests.cpu": "100m"}},
		{`reousrces: {requests: {cpu: 200m}}`, "reousrces", values.Mapped, map[string]any{"inventory.resources.requests.cpu": "200m"}},
		{`collectSecrets: true`, "collectSecrets", values.Mapped, map[string]any{"addTypes": []any{"applications.argoproj.io", "secrets"}}},
		{`collectEvents: true`, "collectEvents", values.Mapped, nil},
		{`collectArgoApplications: false`, "collectArgoApplications", values.Defaulted, map[string]any{"addTypes": nil}},
		{`overrideUniqueClusterId: true`, "overrideUniqueClusterId", values.Dropped, map[string]any{"inventory.overrideUniqueClusterId": nil}},
		{`fetchEverything: false`, "fetchEverything", values.Dropped, nil},
	},
}

// TestEveryKey: each key of the old charts, with a value of a user's, comes to
// what the table says, our chart takes the values, and no key is left out.
func TestEveryKey(t *testing.T) {
	chart := ourChart(t)
	for old, all := range everyKey {
		said := map[string]bool{}
		for _, tc := range all {
			t.Run(old+"/"+tc.user, func(t *testing.T) {
				r := releaseOf(t, old, tc.user)
				got := translate(t, r)
				if n := noteOf(t, got, tc.key); n.Outcome != tc.outcome || n.Outcome == values.Dropped && n.Reason == "" {
					t.Errorf("got %+v, want %s", n, tc.outcome)
				}
				for key, want := range tc.to {
					if diff := cmp.Diff(want, get(got.Values, key)); diff != "" {
						t.Errorf("%s (-want +got):\n%s", key, diff)
					}
				}
				for _, n := range got.Notes {
					if n.Outcome == values.Unknown {
						t.Errorf("%s is unknown: %s", n.Key, n.Reason)
					}
				}
				sound(t, r, got)
				accepted(t, chart, got.Values)
			})
			said[tc.key] = true
		}
		for _, key := range leaves("", decode(t, defaultsOf[old])) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(said)), func(k string) bool { return below(key, k) }) {
				t.Errorf("%s: the table has no value for %s", old, key)
			}
		}
	}
}

// TestDefaults: a release that nobody gave values to.
func TestDefaults(t *testing.T) {
	chart := ourChart(t)
	for old, want := range map[string]string{
		values.Metacollector: `{stream: {plaintext: {enabled: true}}}`,
		values.Firefly: `{clusterID: default, stream: {enabled: false}, webhook: {enabled: false}, inventory: {enabled: true, mode: CronJob, contract: runs, schedule: "*/15 * * * *",
			endpoint: "https://gateway.firefly.ai", loginEndpoint: "https://prod.external.api.infralight.cloud", credentials: {mode: accessKeys, existingSecret: credentials}}}`,
	} {
		got := translate(t, releaseOf(t, old, `{}`))
		if diff := cmp.Diff(decode(t, want), got.Values); diff != "" {
			t.Errorf("%s (-want +got):\n%s", old, diff)
		}
		accepted(t, chart, got.Values)
	}
}

// TestLiveConfig: what was edited in the cluster counts.
func TestLiveConfig(t *testing.T) {
	rendered := strings.Join(strings.Fields("pods services\nwidgets"), "\n")
	for name, tc := range map[string]struct {
		config map[string]string
		key    string // of a note; none if it is empty
		to     map[string]any
	}{
		"types":                              {map[string]string{"collector.resources": rendered}, "collector.resources", map[string]any{"addTypes": []any{"widgets.example.org"}}},
		"a type switched off in the old way": {map[string]string{"collector.resources.Pods": "false"}, "collector.resources.Pods", map[string]any{"removeTypes": []any{"pods"}}},
		"a type switched on in the old way":  {map[string]string{"collector.resources.Secrets": "true"}, "collector.resources.Secrets", map[string]any{"addTypes": []any{"secrets"}}},
		"the endpoint":                       {map[string]string{"endpoint": "https://edited.example/\n"}, "endpoint", map[string]any{"inventory.endpoint": "https://edited.example"}},
		"the login":                          {map[string]string{"loginEndpoint": "https://edited.example"}, "loginEndpoint", map[string]any{"inventory.loginEndpoint": "https://edited.example"}},
		"the size of pages":                  {map[string]string{"collector.PageSize": "800"}, "collector.PageSize", map[string]any{"inventory.pageBytes": "800000"}},
		"namespaces, never honored":          {map[string]string{"collector.watchNamespace": "default", "collector.ignoreNamespaces": "kube-system"}, "collector.watchNamespace", nil},
		"the override that was heard":        {map[string]string{"collector.OverrideUniqueClusterId": "true"}, "collector.OverrideUniqueClusterId", map[string]any{"inventory.overrideUniqueClusterId": true}},
		"the override that was not":          {map[string]string{"collector.overrideUniqueClusterId": "true"}, "", map[string]any{"inventory.overrideUniqueClusterId": nil}},
		"no counterpart":                     {map[string]string{"collector.MaxGoRoutines": "3"}, "collector.MaxGoRoutines", nil},
		"unknown":                            {map[string]string{"collector.surprise": "3"}, "collector.surprise", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := releaseOf(t, values.Firefly, `{}`)
			r.Config = tc.config
			got := translate(t, r)
			if tc.key != "" {
				noteOf(t, got, "configmap: "+tc.key)
			}
			for key, want := range tc.to {
				if diff := cmp.Diff(want, get(got.Values, key)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", key, diff)
				}
			}
		})
	}
}

// TestCustomResources: what was collected because the role allowed everything is
// collected still.
func TestCustomResources(t *testing.T) {
	r := releaseOf(t, values.Firefly, `{}`)
	r.CustomGroups = []string{"b.example.org", "a.example.org"}
	got := translate(t, r)
	if diff := cmp.Diff([]any{"a.example.org", "b.example.org"}, get(got.Values, "inventory.customResourceGroups")); diff != "" || get(got.Values, "inventory.customResources") != true {
		t.Errorf("(-want +got):\n%s", diff)
	}
	accepted(t, ourChart(t), got.Values)
	r = releaseOf(t, values.Firefly, `{removeTypes: [rollouts, customresourcedefinitions, pods]}`)
	r.CustomGroups = []string{"argoproj.io"}
	removing := translate(t, r)
	if diff := cmp.Diff([]any{"pods"}, get(removing.Values, "removeTypes")); diff != "" {
		t.Errorf("what the predecessor collected all the same (-want +got):\n%s", diff)
	}
	accepted(t, ourChart(t), removing.Values)
	if !slices.ContainsFunc(got.Hand, func(s string) bool { return strings.Contains(s, "contents of all Secrets") }) {
		t.Errorf("what the old role could read is not said: %q", got.Hand)
	}
}

// TestUnknown: a key that is not known, or not in this form, is never left out in
// silence.
func TestUnknown(t *testing.T) {
	for user, reason := range map[string]string{
		`replicaCuont: 3`:           "is replicaCount meant?",
		`replicaCount: many`:        "want a whole number",
		`tolerations: {a: b}`:       "want a list",
		`podLabels: [a]`:            "want an object",
		`surprise: {deep: {er: 1}}`: "no such key is known",
		`image: {registri: a}`:      "is image.registry meant?",
		`image: docker.io/x`:        "want an object",
	} {
		got := translate(t, releaseOf(t, values.Metacollector, user))
		i := slices.IndexFunc(got.Notes, func(n values.Note) bool { return n.Outcome == values.Unknown })
		if i < 0 || !strings.Contains(got.Notes[i].Reason, reason) {
			t.Errorf("%s: got %+v, want %q", user, got.Notes, reason)
		}
	}
	r := releaseOf(t, values.Firefly, `{dsn: canary, image: {pass: canary}, tolerations: canary}`)
	r.Config = map[string]string{"surprise": "canary"}
	if shown, err := json.Marshal(translate(t, r)); err != nil || strings.Contains(string(shown), "canary") {
		t.Errorf("a value whose meaning is not known is shown: %s, %v", shown, err)
	}
	if _, err := values.Translate(values.Release{Chart: "nginx"}); err == nil {
		t.Error("a chart that is none of ours is no error")
	}
}

// TestPasswordsInURLs: who logs in with a URL does not tell everybody.
func TestPasswordsInURLs(t *testing.T) {
	r := values.Release{
		Name: "r", Namespace: "n", Chart: values.Firefly, Version: "1.5.6",
		User:   map[string]any{"apiEndpoint": "http://me:s3cret@api.example", "loginEndpoint": "https://me:s3cret@login.example"},
		Config: map[string]string{"endpoint": "http://me:s3cret@other.example"},
	}
	got, err := values.Translate(r)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprint(got.Notes, got.Hand)
	if strings.Contains(shown, "s3cret") || !strings.Contains(shown, "login.example") {
		t.Errorf("got %s", shown)
	}
}

// FuzzTranslate: whatever the values are, nothing panics, no key is lost, and no
// secret is shown.
func FuzzTranslate(f *testing.F) {
	for old, all := range everyKey {
		for _, tc := range all {
			v, err := yaml.YAMLToJSON([]byte(tc.user))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(old, v, "collector.resources", "pods")
		}
	}
	f.Fuzz(func(t *testing.T, old string, user []byte, key, text string) {
		if defaultsOf[old] == "" {
			return
		}
		r := releaseOf(t, old, `{}`)
		if json.Unmarshal(user, &r.User) != nil {
			return
		}
		r.Config = map[string]string{key: text}
		sound(t, r, translate(t, r))
	})
}

// sound holds what is so of every translation.
func sound(t *testing.T, r values.Release, got *values.Translation) {
	t.Helper()
	said := map[string]int{}
	for _, n := range got.Notes {
		said[n.Key]++
		if said[n.Key] > 1 {
			t.Errorf("%s is told twice", n.Key)
		}
	}
	for _, key := range append(leaves("", r.User), leaves("", r.Defaults)...) {
		if !slices.ContainsFunc(got.Notes, func(n values.Note) bool { return below(key, n.Key) }) {
			t.Errorf("nothing is said of %q", key)
		}
	}
	shown, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"accessKey", "secretKey"} {
		if s, ok := r.User[key].(string); ok && len(s) > 5 && strings.Contains(string(shown), s) && !strings.Contains(fmt.Sprint(r.Config, r.Defaults), s) && strings.Count(fmt.Sprint(r.User), s) == 1 {
			t.Errorf("the value of %s is shown: %s", key, shown)
		}
	}
}

// below reports whether a key is another, or in what stands there.
func below(key, note string) bool { return key == note || strings.HasPrefix(key, note+".") }

// leaves are the keys of all values that hold no others.
func leaves(prefix string, v map[string]any) []string {
	var all []string
	for k, v := range v {
		key := strings.TrimPrefix(prefix+"."+k, ".")
		if m, ok := v.(map[string]any); ok && len(m) > 0 {
			all = append(all, leaves(key, m)...)
		} else {
			all = append(all, key)
		}
	}
	return all
}

// ourChart is the chart that values are made for.
func ourChart(t *testing.T) *helmchart.Chart {
	t.Helper()
	chart, err := release.Chart()
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

// accepted renders our chart, whose schema is strict.
func accepted(t *testing.T, chart *helmchart.Chart, v map[string]any) {
	t.Helper()
	all, err := chartutil.ToRenderValues(chart, v, chartutil.ReleaseOptions{Name: "metawire", Namespace: "ns", IsInstall: true}, chartutil.DefaultCapabilities)
	if err == nil {
		_, err = engine.Engine{Strict: true}.Render(chart, all)
	}
	if err != nil {
		t.Errorf("our chart does not take the values: %v", err)
	}
}
