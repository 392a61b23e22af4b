package chart_test

import (
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/engine"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// TestRefused: what makes no sense is refused before anything is installed, by
// an error that names the key.
func TestRefused(t *testing.T) {
	for _, tc := range []struct{ name, values, want string }{
		{"unknown key", "streams: {}", "streams"},
		{"unknown nested key", "stream: {prot: 1}", "prot"},
		{"unknown key of a later version", "autoscaling: {enabled: true}", "autoscaling"},
		{"unknown collector key", "collector: {replica: 3}", "replica"},
		{"unknown image key", "image: {registry: example.com}", "registry"},
		{"key set to null", "stream: {port: null}", "port"},
		{"port as text", `stream: {port: "45000"}`, "/stream/port"},
		{"privileged port", "stream: {port: 443}", "/stream/port"},
		{"port too large", "collector: {ports: {health: 65536}}", "/collector/ports/health"},
		{"one port twice", "collector: {ports: {metrics: 45000}}", "collector.ports.metrics (45000) and stream.port (45000)"},
		{"plaintext port twice", "stream: {plaintext: {enabled: true, port: 8081}}", "collector.ports.health (8081) and stream.plaintext.port (8081)"},
		{"webhook port twice", "webhook: {port: 8080}", "webhook.port (8080) and webhook.ports.metrics (8080)"},
		{"authorization", "stream: {authorization: none}", "/stream/authorization"},
		{"source of certificates", "tls: {source: cert-manager}", "/tls/source"},
		{"no provided Secret", "tls: {source: provided}", "tls.provided.secretName"},
		{"issuer without a name", "tls: {source: certManager, certManager: {issuerRef: {kind: ClusterIssuer}}}", "tls.certManager.issuerRef.name"},
		{"issuer that nobody asks", "tls: {certManager: {issuerRef: {name: x}}}", "tls.certManager.issuerRef has no effect"},
		{"Secret that nobody reads", "tls: {provided: {secretName: x}}", "tls.provided.secretName has no effect"},
		{"Secret beside cert-manager", "tls: {source: certManager, provided: {secretName: x}}", "tls.provided.secretName has no effect"},
		{"a failure policy", "webhook: {failurePolicy: Fail}", "failurePolicy"},
		{"source of the plugin", "webhook: {plugin: {source: falcoctl}}", "/webhook/plugin/source"},
		{"no artifact", `webhook: {plugin: {reference: ""}}`, "webhook.plugin.reference"},
		{"no image", "webhook: {plugin: {source: image, path: /x.so}}", "webhook.plugin.image"},
		{"no path in the image", "webhook: {plugin: {source: image, image: x}}", "webhook.plugin.path"},
		{"no path in Falco's image", "webhook: {plugin: {source: preinstalled}}", "webhook.plugin.path"},
		{"image that nobody asks for", "webhook: {plugin: {image: x}}", "webhook.plugin.image has no effect"},
		{"image beside Falco's", "webhook: {plugin: {source: preinstalled, image: x, path: /x.so}}", "webhook.plugin.image has no effect"},
		{"path that nobody takes", "webhook: {plugin: {path: /x.so}}", "webhook.plugin.path has no effect"},
		{"relative path", "webhook: {plugin: {source: preinstalled, path: x.so}}", "/webhook/plugin/path"},
		{"selector of an unknown kind", "webhook: {namespaceSelector: {matchNames: [x]}}", "matchNames"},
		{"operator", "webhook: {namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}}", "operator"},
		{"no webhook replicas", "webhook: {replicas: 0}", "/webhook/replicas"},
		{"name that begins with a digit", "fullnameOverride: 1a", "/fullnameOverride"},
		{"no replicas", "collector: {replicas: 0}", "/collector/replicas"},
		{"half a replica", "collector: {replicas: 1.5}", "/collector/replicas"},
		{"log level", "collector: {logLevel: verbose}", "/collector/logLevel"},
		{"log format", "collector: {logFormat: xml}", "/collector/logFormat"},
		{"pull policy", "image: {pullPolicy: always}", "/image/pullPolicy"},
		{"digest", "image: {digest: abc}", "/image/digest"},
		{"tag with a digest", `image: {tag: "1@sha256:0"}`, "/image/tag"},
		{"empty repository", `image: {repository: ""}`, "/image/repository"},
		{"no events in a burst", "stream: {pacing: {burst: 0}}", "/stream/pacing/burst"},
		{"no rate", "stream: {pacing: {rate: 0}}", "/stream/pacing/rate"},
		{"pacing key", "stream: {pacing: {bursts: 1}}", "bursts"},
		{"age without unit", `stream: {maxAge: "6"}`, "/stream/maxAge"},
		{"age as a number", "stream: {maxAge: 6}", "/stream/maxAge"},
		{"age in seconds", "stream: {maxAge: 30s}", "/stream/maxAge"},
		{"enabled as text", `stream: {enabled: "false"}`, "/stream/enabled"},
		{"cluster id in capitals", "clusterID: Prod", "/clusterID"},
		{"every type", `addTypes: ["*"]`, "/addTypes/0"},
		{"every type of a group", `addTypes: ["*.apps"]`, "/addTypes/0"},
		{"every group", `addTypes: ["pods.*"]`, "/addTypes/0"},
		{"subresource", "addTypes: [services/status]", "/addTypes/0"},
		{"kind for a plural", "removeTypes: [Pod]", "/removeTypes/0"},
		{"types as text", "addTypes: secrets", "/addTypes"},
		{"pull secret as text", "imagePullSecrets: [mine]", "/imagePullSecrets/0"},
		{"toleration as text", "collector: {tolerations: [x]}", "/collector/tolerations/0"},
		{"label that is a number", "collector: {podLabels: {a: 1}}", "/collector/podLabels/a"},
		{"resources key", "collector: {resources: {limit: {}}}", "limit"},
		{"probe of another kind", "collector: {livenessProbe: {httpGet: {port: 1}}}", "httpGet"},
		{"probe that never comes", "collector: {readinessProbe: {periodSeconds: 0}}", "/collector/readinessProbe/periodSeconds"},
		{"probe before the start", "collector: {livenessProbe: {initialDelaySeconds: -1}}", "/collector/livenessProbe/initialDelaySeconds"},
		{"liveness that takes two", "collector: {livenessProbe: {successThreshold: 2}}", "/collector/livenessProbe/successThreshold"},
		{"security context as text", "collector: {podSecurityContext: none}", "/collector/podSecurityContext"},
		{"unknown monitoring key", "monitoring: {probe: {}}", "probe"},
		{"unknown key of the ServiceMonitor", "monitoring: {serviceMonitor: {create: true}}", "create"},
		{"interval without unit", `monitoring: {serviceMonitor: {interval: "15"}}`, "/monitoring/serviceMonitor/interval"},
		{"timeout in the wrong order", "monitoring: {serviceMonitor: {scrapeTimeout: 5s1m}}", "/monitoring/serviceMonitor/scrapeTimeout"},
		{"two monitors", "monitoring: {serviceMonitor: {enabled: true}, podMonitor: {enabled: true}}", "monitoring.podMonitor.enabled and monitoring.serviceMonitor.enabled are both true"},
		{"rules without an age", `{clusterID: a, inventory: {enabled: true, endpoint: "https://a", schedule: "@daily"}, monitoring: {prometheusRule: {enabled: true}}}`, "monitoring.prometheusRule.inventoryMaxAge"},
		{"age of nothing", "monitoring: {prometheusRule: {inventoryMaxAge: 0h}}", "/monitoring/prometheusRule/inventoryMaxAge"},
		{"an alert that is not there", "monitoring: {prometheusRule: {enabled: true, disabled: [MetawireDown]}}", `no alert "MetawireDown", only MetawireCollectorsDown, `},
		{"runbooks nowhere", `monitoring: {prometheusRule: {runbookURL: ""}}`, "/monitoring/prometheusRule/runbookURL"},
		{"dashboard label that is a number", "monitoring: {dashboard: {labels: {grafana_dashboard: 1}}}", "/monitoring/dashboard/labels/grafana_dashboard"},
		{"global registry with a digest", `global: {imageRegistry: "a@b"}`, "/global/imageRegistry"},
		{"global pull secret without a name", "global: {imagePullSecrets: [{}]}", "/global/imagePullSecrets/0"},
		{"namespace in capitals", "namespaceOverride: Mine", "/namespaceOverride"},
		{"common label that is a number", "commonLabels: {a: 1}", "/commonLabels/a"},
		{"policy of address families", "ipFamilyPolicy: DualStack", "/ipFamilyPolicy"},
		{"address family", "ipFamilies: [ipv6]", "/ipFamilies/0"},
		{"one address family twice", "ipFamilies: [IPv6, IPv6]", "/ipFamilies"},
		{"type of a Service", "collector: {service: {type: LoadBalancer}}", "type"},
		{"distribution of traffic", "collector: {service: {trafficDistribution: Local}}", "/collector/service/trafficDistribution"},
		{"distribution to webhooks", "webhook: {service: {trafficDistribution: PreferClose}}", "trafficDistribution"},
		{"strategy", "collector: {updateStrategy: {type: OnDelete}}", "/collector/updateStrategy/type"},
		{"strategy's numbers", "webhook: {updateStrategy: {rollingUpdate: {maxSurge: half}}}", "/webhook/updateStrategy/rollingUpdate/maxSurge"},
		{"grace period", "collector: {terminationGracePeriodSeconds: 5}", "terminationGracePeriodSeconds"},
		{"DNS policy", "webhook: {dnsPolicy: Cluster}", "/webhook/dnsPolicy"},
		{"argument that is no text", "collector: {extraArgs: [1]}", "/collector/extraArgs/0"},
		{"environment as a map", "collector: {extraEnv: {A: b}}", "/collector/extraEnv"},
		{"environment without a name", "webhook: {extraEnv: [{value: a}]}", "/webhook/extraEnv/0"},
		{"volume without a name", "collector: {extraVolumes: [{emptyDir: {}}]}", "/collector/extraVolumes/0"},
		{"webhook probe of another kind", "webhook: {livenessProbe: {exec: {}}}", "exec"},
		{"nothing to do", "stream: {enabled: false}", "stream.enabled: false"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := render(loadChart(t), tc.values)
			if err == nil {
				t.Fatalf("not refused: %s", tc.values)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error does not name %q: %v", tc.want, err)
			}
		})
	}
}

// TestReleaseNames: whatever Helm takes for a release's name gives names that
// Kubernetes takes, or is refused.
func TestReleaseNames(t *testing.T) {
	for _, tc := range []struct{ release, values, want, err string }{
		{"metawire", "", "metawire", ""},
		{"prod", "", "prod-metawire", ""},
		{"metawire.prod", "", "metawire-prod", ""},
		{"a.b", "", "a-b-metawire", ""},
		{"as-long-as-helm-lets-it-be-the-name-of-some-release-x", "", "as-long-as-helm-lets-it-be-the-name-of-some-releas", ""},
		{"a.release-whose-name-is-cut-just-at-one-of-its-do.x", "", "a-release-whose-name-is-cut-just-at-one-of-its-do", ""},
		{"1st", "", "", "fullnameOverride"},
		{"1st.metawire", "", "", "fullnameOverride"},
		{"1st", "fullnameOverride: first", "first", ""},
	} {
		t.Run(tc.release, func(t *testing.T) {
			files, err := renderAs(tc.release, namespace, engine.Engine{Strict: true}, loadChart(t), tc.values)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("want an error that names %q, got: %v", tc.err, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			objs, err := objects(files)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := find[corev1.Service](objs, "Service", tc.want+"-collector"); err != nil {
				t.Error(err)
			}
			for _, o := range objs {
				valid := validation.IsDNS1123Subdomain
				if o.GetKind() == "Service" {
					valid = validation.IsDNS1035Label
				}
				if problems := valid(o.GetName()); problems != nil {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), problems)
				}
			}
		})
	}
}
