package chart_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
imagePullSecrets: [{name: mine}]
stream: {port: 50051, pacing: {burst: 1000000, rate: 0.5}, maxAge: 90m}
collector:
  replicas: 3
  logLevel: debug
  logFormat: text
  ports: {health: 9081, metrics: 9080}
  resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1500m, memory: 2Gi}}
  serviceAccount: {name: mine, annotations: {a: "1"}}
  podAnnotations: {a: "true", checksum/config: mine}
  podLabels: {team: security, app.kubernetes.io/component: mine}
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: [{key: dedicated, operator: Exists, effect: NoSchedule}]
  priorityClassName: system-cluster-critical
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
	"names that look like numbers": `{nameOverride: "123", collector: {serviceAccount: {name: "123"}, podDisruptionBudget: {enabled: false}}}`,
	"the least": `
stream: {maxAge: 0}
collector: {replicas: 1, resources: {requests: null, limits: null}, serviceAccount: {create: false}}
`,
}

// inventorySets are rendered without the template that refuses them for now.
var inventorySets = map[string]string{
	"stream and inventory": "{inventory: {enabled: true}, clusterID: x, addTypes: [secrets, widgets, applications.argoproj.io], removeTypes: [pods, nosuch]}",
	"inventory alone":      "{inventory: {enabled: true}, clusterID: x, stream: {enabled: false}}",
}

// rendering is one value set's objects.
type rendering struct {
	files   map[string]string
	objects []*unstructured.Unstructured
}

func renderAll(t testing.TB) map[string]rendering {
	t.Helper()
	all := map[string]rendering{}
	for name, values := range valueSets {
		files, objs := mustRender(t, loadChart(t), values)
		all[name] = rendering{files, objs}
	}
	for name, values := range inventorySets {
		files, objs := mustRender(t, loadChart(t, validateTemplate), values)
		all[name] = rendering{files, objs}
	}
	return all
}

// TestObjects: which objects a value set has.
func TestObjects(t *testing.T) {
	cut := "a-name-that-is-longer-than-the-chart-lets-it-be-so"
	want := map[string][]string{
		"defaults": {
			"ClusterRole/metawire-collector", "ClusterRoleBinding/metawire-collector", "ConfigMap/metawire-collector",
			"Deployment/metawire-collector", "Pod/metawire-test-stream", "PodDisruptionBudget/metawire-collector",
			"Service/metawire-collector", "ServiceAccount/metawire-collector",
		},
		"everything": {
			"ClusterRole/" + cut + "-collector", "ClusterRoleBinding/" + cut + "-collector", "ConfigMap/" + cut + "-collector",
			"ConfigMap/metawire-extra", "ConfigMap/metawire-text", "Deployment/" + cut + "-collector",
			"Pod/" + cut + "-test-stream", "PodDisruptionBudget/" + cut + "-collector", "Service/" + cut + "-collector",
			"ServiceAccount/mine",
		},
		"the least": {
			"ClusterRole/metawire-collector", "ClusterRoleBinding/metawire-collector", "ConfigMap/metawire-collector",
			"Deployment/metawire-collector", "Pod/metawire-test-stream", "Service/metawire-collector",
		},
		"names that look like numbers": {
			"ClusterRole/metawire-123-collector", "ClusterRoleBinding/metawire-123-collector", "ConfigMap/metawire-123-collector",
			"Deployment/metawire-123-collector", "Pod/metawire-123-test-stream",
			"Service/metawire-123-collector", "ServiceAccount/123",
		},
		"stream and inventory": nil,
		"inventory alone":      nil,
	}
	for name, r := range renderAll(t) {
		var got []string
		for _, o := range r.objects {
			got = append(got, o.GetKind()+"/"+o.GetName())
			if ns := o.GetNamespace(); ns != namespace && !strings.HasPrefix(o.GetKind(), "Cluster") {
				t.Errorf("%s: %s %s is in namespace %q", name, o.GetKind(), o.GetName(), ns)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(want[name], got); d != "" && want[name] != nil {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestSelectors: Service, PodDisruptionBudget and Deployment select the
// collectors, and not the test pod.
func TestSelectors(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), valueSets["defaults"])
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	svc, err := find[corev1.Service](objs, "Service", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	pdb, err := find[policyv1.PodDisruptionBudget](objs, "PodDisruptionBudget", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	test, err := find[corev1.Pod](objs, "Pod", "metawire-test-stream")
	if err != nil {
		t.Fatal(err)
	}
	for name, selector := range map[string]map[string]string{
		"Deployment":          d.Spec.Selector.MatchLabels,
		"Service":             svc.Spec.Selector,
		"PodDisruptionBudget": pdb.Spec.Selector.MatchLabels,
		"topology spread":     d.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		s := labels.SelectorFromSet(selector)
		if s.Empty() || !s.Matches(labels.Set(d.Spec.Template.Labels)) {
			t.Errorf("%s: %q does not select the collectors, labelled %v", name, s, d.Spec.Template.Labels)
		}
		if s.Matches(labels.Set(test.Labels)) {
			t.Errorf("%s: %q selects the test pod", name, s)
		}
	}
	ports := map[string]bool{}
	for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = true
	}
	for _, p := range svc.Spec.Ports {
		if !ports[p.TargetPort.StrVal] {
			t.Errorf("Service port %s leads to %q, which the collector has not: %v", p.Name, p.TargetPort.StrVal, slices.Sorted(maps.Keys(ports)))
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

// TestTokens: only the collector gets an API token.
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
	if spec := test.Spec; spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken || spec.ServiceAccountName != "" {
		t.Error("the test pod gets a token")
	}
}

// TestNotes: what users are told after the install.
func TestNotes(t *testing.T) {
	for _, tc := range []struct {
		name, set string
		want, not []string
	}{
		{
			"defaults", "defaults",
			[]string{
				"PLAINTEXT and OPEN", "kubectl rollout status -n metawire deployment/metawire-collector",
				"helm test -n " + namespace + " " + release, "kubectl port-forward -n metawire service/metawire-collector 45000",
				"metawire watch --addr 127.0.0.1:45000 --node", "collectorHostname: metawire-collector.metawire.svc",
				"collectorPort: 45000", `nodeName: "$${FALCO_K8S_NODE_NAME}"`,
			},
			[]string{"NOTE:", "<no value>", "{{"},
		},
		{"everything", "everything", []string{"3 collectors", ".metawire.svc:50051"}, []string{"NOTE:"}},
		{
			"an unknown name", "stream and inventory",
			[]string{
				"EVERY API group, because no known type has the name: widgets.", "grep -w '^widgets'",
				"may read credentials: secrets.", "removeTypes has names that were not in the inventory anyway: nosuch.",
			},
			[]string{"applications"},
		},
		{"no stream", "inventory alone", []string{"The inventory collects 43 resource types"}, []string{"PLAINTEXT", "helm test", "NOTE:"}},
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
}
