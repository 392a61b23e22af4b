package chart_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

// valueSets are what the tests of whole renderings render: together they reach
// every branch of the templates.
var valueSets = map[string]string{
	"defaults": "",
	"everything": `
clusterID: prod-1
nameOverride: mw
fullnameOverride: a-name-that-is-longer-than-the-chart-lets-it-be-so-it-is-cut
image: {repository: "registry.local:5000/team/metawire", tag: "1.2.3", digest: "sha256:` + strings.Repeat("0a", 32) + `", pullPolicy: Always}
imagePullSecrets: [{name: mine}, {name: own}]
global: {imageRegistry: "mirror.local:5000", imagePullSecrets: [theirs, {name: mine}], storageClass: not ours}
commonLabels: {team: web, app.kubernetes.io/name: theirs}
ipFamilyPolicy: PreferDualStack
ipFamilies: [IPv4]
stream:
  port: 50051
  pacing: {burst: 1000000, rate: 0.5}
  maxAge: 90m
  authorization: audit
  trustNodeAddresses: false
  plaintext: {enabled: true, port: 50052}
tls: {source: provided, provided: {secretName: certificate}}
networkPolicy: {enabled: true}
monitoring:
  serviceMonitor:
    enabled: true
    labels: {release: prometheus, app.kubernetes.io/name: theirs}
    interval: 1m30s
    scrapeTimeout: 10s
    relabelings: [{sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: node, action: replace}]
    targetLabels: [team]
    namespace: monitoring
  prometheusRule:
    enabled: true
    namespace: monitoring
    labels: {release: prometheus, app.kubernetes.io/name: theirs}
    alertLabels: {team: security}
    disabled: [MetawireLegacySubscribers]
    inventoryMaxAge: 2d
    runbookURL: https://runbooks.example/metawire/
  dashboard:
    enabled: true
    namespace: monitoring
    labels: {grafana_dashboard: null, dashboards: "yes"}
    annotations: {grafana_folder: Security}
webhook:
  replicas: 3
  port: 10443
  logLevel: debug
  logFormat: text
  ports: {health: 10081, metrics: 10080}
  configurationAnnotations: {admissions.enforcer/disabled: "true"}
  plugin: {source: image, image: "registry.local/plugins:1", path: /plugins/libk8smeta.so, plainHTTP: true}
  namespaceSelector: {matchLabels: {team: security}, matchExpressions: [{key: env, operator: In, values: [prod]}]}
  imagePullSecrets: [{name: pull}]
  resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1500m, memory: 2Gi}}
  serviceAccount: {name: mine-too, annotations: {a: "1"}}
  service: {annotations: {a: "1"}}
  deploymentAnnotations: {a: "1"}
  topologySpreadConstraints: [{maxSkew: 2, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}]
  updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 50%}}
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.1], options: [{name: ndots, value: "2"}]}
  extraArgs: [--zone, mars]
  extraEnv: [{name: A, value: b}, {name: HTTPS_PROXY, value: "http://mine"}]
  extraVolumes: [{name: extra, emptyDir: {}}]
  extraVolumeMounts: [{name: extra, mountPath: /extra}]
  podSecurityContext: {runAsUser: null, fsGroup: 1000620000}
  containerSecurityContext: {capabilities: {add: [NET_BIND_SERVICE]}}
  livenessProbe: {initialDelaySeconds: 90}
  readinessProbe: {periodSeconds: 20}
  podAnnotations: {a: "true", checksum/config: mine}
  podLabels: {team: security, metawire.dev/own: "false"}
  nodeSelector: {disk: ssd}
  tolerations: [{key: dedicated, operator: Exists, effect: NoSchedule}]
  priorityClassName: system-cluster-critical
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
collector:
  replicas: 3
  logLevel: debug
  logFormat: text
  ports: {health: 9081, metrics: 9080}
  resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1500m, memory: 2Gi}}
  serviceAccount: {name: mine, annotations: {a: "1"}}
  service: {annotations: {a: "1"}, trafficDistribution: PreferSameZone}
  deploymentAnnotations: {a: "1"}
  topologySpreadConstraints: [{maxSkew: 2, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}]
  updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 50%}}
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.1], options: [{name: ndots, value: "2"}]}
  extraArgs: [--zone, mars]
  extraEnv: [{name: A, value: b}, {name: HTTPS_PROXY, value: "http://mine"}]
  extraVolumes: [{name: extra, emptyDir: {}}]
  extraVolumeMounts: [{name: extra, mountPath: /extra}]
  podAnnotations: {a: "true", checksum/config: mine}
  podLabels: {team: security, app.kubernetes.io/component: mine}
  nodeSelector: {disk: ssd}
  tolerations: [{key: dedicated, operator: Exists, effect: NoSchedule}]
  priorityClassName: system-cluster-critical
  podSecurityContext: {runAsUser: null, fsGroup: 1000620000, seccompProfile: {type: Localhost, localhostProfile: a.json}}
  containerSecurityContext: {readOnlyRootFilesystem: false, capabilities: {add: [NET_BIND_SERVICE]}}
  livenessProbe: {initialDelaySeconds: 90, periodSeconds: 20, timeoutSeconds: 9, failureThreshold: 2, successThreshold: 1}
  readinessProbe: {initialDelaySeconds: 0, periodSeconds: 20, timeoutSeconds: 9, failureThreshold: 2, successThreshold: 2}
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app.kubernetes.io/name: mw}}}
extraObjects:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ .Release.Name }}-extra", namespace: "{{ .Release.Namespace }}"}}
  - |
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: {{ .Release.Name }}-text, namespace: {{ .Release.Namespace }}}
`,
	"names that look like numbers": `{nameOverride: "123", collector: {serviceAccount: {name: "123"}, podDisruptionBudget: {enabled: false}}, webhook: {podDisruptionBudget: {enabled: false}, podLabels: {"1": "2"}}}`,
	"the least": `
stream: {maxAge: 0, authorization: disabled}
collector: {replicas: 1, resources: {requests: null, limits: null}, serviceAccount: {create: false}}
webhook: {enabled: false}
`,
	"one webhook": `
webhook: {replicas: 1, resources: {requests: null, limits: null}, serviceAccount: {create: false}, plugin: {source: preinstalled, path: /x.so}}
monitoring:
  podMonitor:
    enabled: true
    labels: {release: prometheus}
    interval: 1m30s
    scrapeTimeout: 10s
    relabelings: [{sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: node, action: replace}]
    podTargetLabels: [team]
    namespace: monitoring
`,
	"cert-manager":                `{tls: {source: certManager}, webhook: {plugin: {reference: "registry.local/k8smeta:0.4.1"}}}`,
	"cert-manager with an issuer": `tls: {source: certManager, certManager: {issuerRef: {name: corporate, kind: ClusterIssuer, group: example.com}}}`,
}

// rendering is one value set's objects.
type rendering struct {
	files   map[string]string
	objects []*unstructured.Unstructured
}

func renderAll(t testing.TB) map[string]rendering {
	t.Helper()
	all := map[string]rendering{}
	for _, sets := range []map[string]string{valueSets, inventorySets} {
		for name, values := range sets {
			files, objs := mustRender(t, loadChart(t), values)
			all[name] = rendering{files, objs}
		}
	}
	return all
}

// TestObjects: which objects a value set has.
func TestObjects(t *testing.T) {
	cut := "a-name-that-is-longer-than-the-chart-lets-it-be-so"
	want := map[string][]string{
		"defaults": objectNames("metawire", `
			ClusterRole/-collector ClusterRole/-collector-events ClusterRole/-collector-reviews ClusterRole/-viewer
			ClusterRole/-webhook ClusterRoleBinding/-collector ClusterRoleBinding/-collector-events
			ClusterRoleBinding/-collector-reviews ClusterRoleBinding/-viewer ClusterRoleBinding/-webhook
			ConfigMap/-collector ConfigMap/-webhook Deployment/-collector Deployment/-webhook
			Pod/-test-rights Pod/-test-stream Pod/-test-webhook Role/-test-webhook RoleBinding/-test-webhook
			ServiceAccount/-test-webhook PodDisruptionBudget/-collector PodDisruptionBudget/-webhook
			Role/-collector Role/-webhook RoleBinding/-collector RoleBinding/-webhook Secret/-ca Secret/-tickets
			Service/-collector Service/-webhook ServiceAccount/-collector ServiceAccount/-viewer ServiceAccount/-webhook`,
			"MutatingWebhookConfiguration/zz-metawire-webhook"),
		"everything": objectNames(cut, `
			ClusterRole/-collector ClusterRole/-collector-events ClusterRole/-collector-reviews ClusterRole/-viewer
			ClusterRole/-webhook ClusterRoleBinding/-collector ClusterRoleBinding/-collector-events
			ClusterRoleBinding/-collector-reviews ClusterRoleBinding/-viewer ClusterRoleBinding/-webhook
			ConfigMap/-collector ConfigMap/-webhook Deployment/-collector Deployment/-webhook
			NetworkPolicy/-collector NetworkPolicy/-egress NetworkPolicy/-webhook
			Pod/-test-rights Pod/-test-stream PodDisruptionBudget/-collector PodDisruptionBudget/-webhook
			Role/-collector Role/-webhook RoleBinding/-collector RoleBinding/-webhook Secret/-tickets
			Service/-collector Service/-webhook ServiceAccount/-viewer PrometheusRule/ ServiceMonitor/`,
			"MutatingWebhookConfiguration/zz-"+cut+"-webhook", "ConfigMap/"+cut+"-dashboard", "ConfigMap/metawire-extra", "ConfigMap/metawire-text",
			"ServiceAccount/mine", "ServiceAccount/mine-too"),
		"the least": objectNames("metawire", `
			ClusterRole/-collector ClusterRole/-collector-reviews ClusterRole/-viewer
			ClusterRoleBinding/-collector ClusterRoleBinding/-collector-reviews ClusterRoleBinding/-viewer
			ConfigMap/-collector Deployment/-collector Pod/-test-rights Pod/-test-stream Role/-collector RoleBinding/-collector
			Secret/-ca Secret/-tickets Service/-collector ServiceAccount/-viewer`),
		"cert-manager": objectNames("metawire", `
			Certificate/-authority Certificate/-collector Certificate/-webhook
			ClusterRole/-collector ClusterRole/-collector-events ClusterRole/-collector-reviews ClusterRole/-viewer
			ClusterRoleBinding/-collector ClusterRoleBinding/-collector-events
			ClusterRoleBinding/-collector-reviews ClusterRoleBinding/-viewer
			ConfigMap/-collector ConfigMap/-webhook Deployment/-collector Deployment/-webhook
			Issuer/-authority Issuer/-selfsigned
			Pod/-test-rights Pod/-test-stream Pod/-test-webhook Role/-test-webhook RoleBinding/-test-webhook
			ServiceAccount/-test-webhook PodDisruptionBudget/-collector PodDisruptionBudget/-webhook
			Role/-collector Role/-webhook RoleBinding/-collector RoleBinding/-webhook Secret/-tickets
			Service/-collector Service/-webhook ServiceAccount/-collector ServiceAccount/-viewer ServiceAccount/-webhook`,
			"MutatingWebhookConfiguration/zz-metawire-webhook"),
		"inventory alone": objectNames("metawire", `
			ClusterRole/-collector ClusterRole/-inventory ClusterRoleBinding/-collector ClusterRoleBinding/-inventory
			ConfigMap/-collector ConfigMap/-inventory-report Deployment/-collector Lease/-inventory
			Pod/-test-inventory Pod/-test-rights PodDisruptionBudget/-collector Role/-inventory RoleBinding/-inventory Secret/-inventory-redaction
			Service/-collector ServiceAccount/-collector`),
		"a CronJob alone": objectNames("metawire", `
			ClusterRole/-inventory ClusterRole/-inventory-types ClusterRoleBinding/-inventory ClusterRoleBinding/-inventory-types
			ConfigMap/-inventory ConfigMap/-inventory-report CronJob/-inventory Lease/-inventory
			NetworkPolicy/-egress Pod/-test-inventory Pod/-test-rights-job Role/-inventory RoleBinding/-inventory
			Secret/-inventory-redaction ServiceAccount/-inventory PrometheusRule/`),
	}
	for name, r := range renderAll(t) {
		var got []string
		for _, o := range r.objects {
			got = append(got, o.GetKind()+"/"+o.GetName())
			if ns := o.GetNamespace(); ns != namespace && ns != monitoring && !strings.HasPrefix(o.GetKind(), "Cluster") && o.GetKind() != "MutatingWebhookConfiguration" {
				t.Errorf("%s: %s %s is in namespace %q", name, o.GetKind(), o.GetName(), ns)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(want[name], got); d != "" && want[name] != nil {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// objectNames puts the prefix before the names of the objects, each kind/name.
func objectNames(prefix, objects string, more ...string) []string {
	for o := range strings.FieldsSeq(objects) {
		more = append(more, strings.Replace(o, "/", "/"+prefix, 1))
	}
	slices.Sort(more)
	return more
}

// TestSelectors: Service, PodDisruptionBudget, NetworkPolicy and Deployment
// select the pods of their daemon, and neither the other's nor the test pod.
func TestSelectors(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), "networkPolicy: {enabled: true}")
	test, err := find[corev1.Pod](objs, "Pod", "metawire-test-stream")
	if err != nil {
		t.Fatal(err)
	}
	for own, other := range map[string]string{"metawire-collector": "metawire-webhook", "metawire-webhook": "metawire-collector"} {
		d, err := find[appsv1.Deployment](objs, "Deployment", own)
		if err != nil {
			t.Fatal(err)
		}
		od, err := find[appsv1.Deployment](objs, "Deployment", other)
		if err != nil {
			t.Fatal(err)
		}
		svc, err := find[corev1.Service](objs, "Service", own)
		if err != nil {
			t.Fatal(err)
		}
		pdb, err := find[policyv1.PodDisruptionBudget](objs, "PodDisruptionBudget", own)
		if err != nil {
			t.Fatal(err)
		}
		policy, err := find[networkingv1.NetworkPolicy](objs, "NetworkPolicy", own)
		if err != nil {
			t.Fatal(err)
		}
		for name, selector := range map[string]map[string]string{
			"Deployment":          d.Spec.Selector.MatchLabels,
			"Service":             svc.Spec.Selector,
			"PodDisruptionBudget": pdb.Spec.Selector.MatchLabels,
			"NetworkPolicy":       policy.Spec.PodSelector.MatchLabels,
			"topology spread":     d.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
		} {
			s := labels.SelectorFromSet(selector)
			if s.Empty() || !s.Matches(labels.Set(d.Spec.Template.Labels)) {
				t.Errorf("%s: %s: %q does not select its pods, labelled %v", own, name, s, d.Spec.Template.Labels)
			}
			if s.Matches(labels.Set(test.Labels)) || s.Matches(labels.Set(od.Spec.Template.Labels)) {
				t.Errorf("%s: %s: %q selects the test pod, or the other daemon's", own, name, s)
			}
		}
		if _, ok := d.Spec.Selector.MatchLabels["metawire.dev/own"]; ok {
			t.Errorf("%s: the Deployment's selector, which no upgrade may change, has metawire.dev/own", own)
		}
	}
}

// TestPorts: each port of a Service or a NetworkPolicy is one of the daemon's.
func TestPorts(t *testing.T) {
	for _, values := range []string{"networkPolicy: {enabled: true}", "{networkPolicy: {enabled: true}, stream: {plaintext: {enabled: true}}}"} {
		_, objs := mustRender(t, loadChart(t), values)
		for _, name := range []string{"metawire-collector", "metawire-webhook"} {
			d, err := find[appsv1.Deployment](objs, "Deployment", name)
			if err != nil {
				t.Fatal(err)
			}
			svc, err := find[corev1.Service](objs, "Service", name)
			if err != nil {
				t.Fatal(err)
			}
			policy, err := find[networkingv1.NetworkPolicy](objs, "NetworkPolicy", name)
			if err != nil {
				t.Fatal(err)
			}
			var ports, served, admitted []string
			for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
				ports = append(ports, p.Name)
			}
			for _, p := range svc.Spec.Ports {
				served = append(served, p.TargetPort.StrVal)
			}
			for _, p := range policy.Spec.Ingress[0].Ports {
				admitted = append(admitted, p.Port.StrVal)
			}
			served = append(served, "health") // of the kubelet only
			for _, list := range [][]string{ports, served, admitted} {
				slices.Sort(list)
			}
			if d := cmp.Diff(ports, served); d != "" {
				t.Errorf("%s: Service (-pod +Service):\n%s", name, d)
			}
			if d := cmp.Diff(ports, admitted); d != "" {
				t.Errorf("%s: NetworkPolicy (-pod +NetworkPolicy):\n%s", name, d)
			}
		}
	}
}

// TestNobodyIsHeldBack: where the namespace denies egress, every pod of the
// release gets out.
func TestNobodyIsHeldBack(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), shipping("", "networkPolicy: {enabled: true}"))
	policy, err := find[networkingv1.NetworkPolicy](objs, "NetworkPolicy", "metawire-egress")
	if err != nil {
		t.Fatal(err)
	}
	want := networkingv1.NetworkPolicySpec{
		PodSelector: policy.Spec.PodSelector, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress: []networkingv1.NetworkPolicyEgressRule{{}},
	}
	if d := cmp.Diff(want, policy.Spec); d != "" {
		t.Errorf("not to anywhere (-want +got):\n%s", d)
	}
	selector := labels.SelectorFromSet(policy.Spec.PodSelector.MatchLabels)
	if selector.Matches(labels.Set{"app.kubernetes.io/name": "metawire", "app.kubernetes.io/instance": "another"}) {
		t.Errorf("%q selects another release's pods", selector)
	}
	pods := 0
	for _, o := range objs {
		pod, err := podOf(o)
		if err != nil {
			t.Fatal(err)
		}
		if o.GetKind() == "Pod" {
			pod = o
		}
		if pod == nil {
			continue
		}
		pods++
		if !selector.Matches(labels.Set(pod.GetLabels())) {
			t.Errorf("%q does not select the pods of %s %s", selector, o.GetKind(), o.GetName())
		}
	}
	if pods != 6 {
		t.Errorf("%d kinds of pods, want the collector's, the webhook's and those of four tests", pods)
	}
}

// TestRolloutsSpread: the pods of a new version are spread among themselves.
func TestRolloutsSpread(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), "")
	for _, name := range []string{"metawire-collector", "metawire-webhook"} {
		d, err := find[appsv1.Deployment](objs, "Deployment", name)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Spec.Template.Spec.TopologySpreadConstraints[0].MatchLabelKeys; !slices.Equal(got, []string{"pod-template-hash"}) {
			t.Errorf("%s: matchLabelKeys is %v", name, got)
		}
	}
}

// TestOnlyReplicasWait: a container that is back after a crash leaves its
// subscribers to the others, if there are any.
func TestOnlyReplicasWait(t *testing.T) {
	for replicas, waits := range map[int]bool{1: false, 2: true, 3: true} {
		_, objs := mustRender(t, loadChart(t), fmt.Sprintf("collector: {replicas: %d}", replicas))
		d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
		if err != nil {
			t.Fatal(err)
		}
		if delay := d.Spec.Template.Spec.Containers[0].ReadinessProbe.InitialDelaySeconds; delay > 0 != waits {
			t.Errorf("%d replicas: ready after %d s at the earliest", replicas, delay)
		}
	}
}

// TestUsersCannotBreakTheSelector: labels and annotations of users come
// second to those that the chart relies on.
func TestUsersCannotBreakTheSelector(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), "collector: {podLabels: {app.kubernetes.io/component: mine, team: a}, podAnnotations: {checksum/config: mine, b: c}}")
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Spec.Template.Labels; got["app.kubernetes.io/component"] != "collector" || got["team"] != "a" {
		t.Errorf("labels of the pods: %v", got)
	}
	if got := d.Spec.Template.Annotations; len(got["checksum/config"]) != 64 || got["b"] != "c" {
		t.Errorf("annotations of the pods: %v", got)
	}
}

// TestConfigChangeRollsOut: pods are replaced when their configuration changes,
// and not when something else does.
func TestConfigChangeRollsOut(t *testing.T) {
	checksum := func(values string) string {
		_, objs := mustRender(t, loadChart(t), values)
		d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
		if err != nil {
			t.Fatal(err)
		}
		return d.Spec.Template.Annotations["checksum/config"]
	}
	was := checksum("")
	if checksum("stream: {maxAge: 1h}") == was {
		t.Error("a changed configuration does not roll out")
	}
	if checksum("collector: {replicas: 5}") != was {
		t.Error("a changed number of replicas replaces every pod")
	}
}

// TestTokens: only the daemons get an API token.
func TestTokens(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), valueSets["defaults"])
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	sa, err := find[corev1.ServiceAccount](objs, "ServiceAccount", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	test, err := find[corev1.Pod](objs, "Pod", "metawire-test-stream")
	if err != nil {
		t.Fatal(err)
	}
	if spec := d.Spec.Template.Spec; spec.ServiceAccountName != sa.Name || spec.AutomountServiceAccountToken == nil || !*spec.AutomountServiceAccountToken {
		t.Error("the collector gets no token of its ServiceAccount")
	}
	if sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken {
		t.Error("every pod of the ServiceAccount gets a token")
	}
	if spec := test.Spec; spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken || spec.ServiceAccountName != "metawire-viewer" {
		t.Error("the test pod gets a token of the API, or not the viewer's")
	}
}
