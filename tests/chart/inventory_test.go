package chart_test

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/collector/config"
)

// inventorySets are those with an inventory.
var inventorySets = map[string]string{
	"stream and inventory": shipping("", "addTypes: [secrets, widgets, applications.argoproj.io], removeTypes: [pods, nosuch]"),
	"inventory alone":      shipping("", "stream: {enabled: false}"),
	"everything shipped": shipping(`
		contract: objects, schedule: 0 3 * * *, timeZone: Europe/Berlin, jitter: 30s, changes: true, completeEvery: 5, redaction: on,
		customResources: true, customResourceGroups: [example.com], helmReleases: true, pageBytes: 1000000, maxObjectBytes: 2Mi, compression: gzip,
		credentials: {mode: accessKeys, accessKey: a, secretKey: b}, loginEndpoint: "https://login.example", caSecret: ca,
		proxy: {url: "http://proxy.example:3128", except: .example}, spool: {size: 1Gi}`, "addTypes: [secrets], networkPolicy: {enabled: true}"),
	"a CronJob": shipping(`
		mode: CronJob, schedule: "@daily", activeDeadlineSeconds: 7200, contract: runs, overrideUniqueClusterId: true, credentials: {mode: bearer, existingSecret: mine}, redaction: none,
		proxy: {url: "http://proxy.example:3128"}, serviceAccount: {name: sender, annotations: {a: "1"}}, resources: {requests: {cpu: 1}}`, `
		collector: {extraEnv: [{name: SSL_CERT_FILE, value: /ca/all.crt}], extraVolumes: [{name: ca, emptyDir: {}}], extraVolumeMounts: [{name: ca, mountPath: /ca, readOnly: true}],
			dnsPolicy: Default, podAnnotations: {a: b}, podLabels: {team: a}, priorityClassName: system-cluster-critical, tolerations: [{operator: Exists}],
			nodeSelector: {disk: ssd}, affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [
				{weight: 1, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: busy}}}}]}}}`),
	"a CronJob without TLS": shipping(`
		mode: CronJob, schedule: "@daily", endpoint: "http://inventory.example", insecure: true, credentials: {mode: bearer, token: hunter2},
		serviceAccount: {create: false, name: sender}, resources: {requests: {memory: 1Gi}, limits: {memory: 2Gi}}`),
	"a CronJob alone": shipping("mode: CronJob, schedule: 0 * * * *, caSecret: ca", "stream: {enabled: false}, networkPolicy: {enabled: true}, monitoring: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true, inventoryMaxAge: 3h}}"),
}

// shipping returns values with an inventory, of these values too, and others.
func shipping(inventory string, others ...string) string {
	all := append([]string{"clusterID: x, inventory: {enabled: true, endpoint: https://inventory.example/ingest, " + inventory + "}"}, others...)
	return "{" + strings.ReplaceAll(strings.Join(all, ", "), "\t", " ") + "}"
}

// sender returns the pods that send.
func sender(t *testing.T, values string) corev1.PodSpec {
	t.Helper()
	_, objs := mustRender(t, loadChart(t), values)
	if c, err := find[batchv1.CronJob](objs, "CronJob", "metawire-inventory"); err == nil {
		return c.Spec.JobTemplate.Spec.Template.Spec
	}
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	return d.Spec.Template.Spec
}

// TestCronJob: a run is a pod of its own, with an account of its own; two never
// run at once, a run that fails is not repeated at once, and one that cannot begin
// does not keep others from it.
func TestCronJob(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), inventorySets["a CronJob"])
	c, err := find[batchv1.CronJob](objs, "CronJob", "metawire-inventory")
	if err != nil {
		t.Fatal(err)
	}
	job := c.Spec.JobTemplate.Spec
	if c.Spec.Schedule != "@daily" || *c.Spec.TimeZone != "Etc/UTC" || c.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent || *job.BackoffLimit != 0 {
		t.Errorf("the CronJob is %+v", c.Spec)
	}
	if d := job.ActiveDeadlineSeconds; d == nil || *d != 7200 {
		t.Errorf("a run that cannot begin ends after %v s", d)
	}
	pod := job.Template.Spec
	if pod.ServiceAccountName != "sender" || !*pod.AutomountServiceAccountToken || pod.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("its pods run as %q", pod.ServiceAccountName)
	}
	if args := pod.Containers[0].Args; !slices.Contains(args, "--inventory-once") {
		t.Errorf("args are %v", args)
	}
	d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-collector")
	if err != nil {
		t.Fatal(err)
	}
	placed := d.Spec.Template.Spec
	if placed.PriorityClassName == "" || placed.Tolerations == nil || placed.NodeSelector == nil || placed.Affinity == nil {
		t.Errorf("the values place the collectors nowhere: %+v", placed)
	}
	for what, differs := range map[string]string{
		"priorityClassName": cmp.Diff(placed.PriorityClassName, pod.PriorityClassName),
		"tolerations":       cmp.Diff(placed.Tolerations, pod.Tolerations),
		"nodeSelector":      cmp.Diff(placed.NodeSelector, pod.NodeSelector),
		"affinity":          cmp.Diff(placed.Affinity, pod.Affinity),
	} {
		if differs != "" {
			t.Errorf("%s: its pods are not placed as the collectors (-collector +CronJob):\n%s", what, differs)
		}
	}
	for _, v := range placed.Volumes {
		if strings.HasPrefix(v.Name, "inventory-") {
			t.Errorf("the collectors, which send nothing, have volume %s", v.Name)
		}
	}
}

// TestLongNames: those of CronJobs end at 52 characters.
func TestLongNames(t *testing.T) {
	_, objs := mustRender(t, loadChart(t), shipping("mode: CronJob, schedule: '@daily'", "fullnameOverride: "+strings.Repeat("long-name-", 6)+"x"))
	name := strings.Repeat("long-name-", 4) + "lo-inventory"
	if _, err := find[batchv1.CronJob](objs, "CronJob", name); err != nil || len(name) != 52 {
		t.Errorf("%d characters: %v", len(name), err)
	}
}

// TestInventoryIsTested: the pod of helm test has the configuration, the credentials
// and the report of whoever sends, and no rights of its own; it comes after that of
// the stream and runs on the nodes of the collectors.
func TestInventoryIsTested(t *testing.T) {
	for _, set := range []string{"inventory alone", "a CronJob", "everything shipped"} {
		_, objs := mustRender(t, loadChart(t), inventorySets[set])
		pod, err := find[corev1.Pod](objs, "Pod", "metawire-test-inventory")
		if err != nil {
			t.Fatal(err)
		}
		volumes, mounts := map[string]corev1.Volume{}, map[string]string{}
		for _, v := range pod.Spec.Volumes {
			volumes[v.Name] = v
		}
		for _, m := range pod.Spec.Containers[0].VolumeMounts {
			mounts[m.Name] = m.MountPath
			if _, ok := volumes[m.Name]; !ok || !m.ReadOnly {
				t.Errorf("%s: mount %s has no volume, or may be written", set, m.Name)
			}
		}
		if _, err := find[corev1.ConfigMap](objs, "ConfigMap", volumes["report"].ConfigMap.Name); err != nil || !*volumes["report"].ConfigMap.Optional {
			t.Errorf("%s: the report is not what is mounted: %v", set, err)
		}
		file, err := find[corev1.ConfigMap](objs, "ConfigMap", volumes["config"].ConfigMap.Name)
		if err != nil {
			t.Fatalf("%s: %v", set, err)
		}
		c, err := config.DecodeInventory([]byte(file.Data["collector.yaml"]), func(string) string { return "" })
		if err != nil {
			t.Fatalf("%s: %v", set, err)
		}
		for _, name := range []string{c.Inventory.Credentials.TokenFile, c.Inventory.Credentials.AccessKeyFile, c.Inventory.CAFile} {
			if name != "" && path.Dir(name) != mounts["inventory-credentials"] && path.Dir(name) != mounts["inventory-ca"] {
				t.Errorf("%s: %s is not mounted", set, name)
			}
		}
		d, err := find[batchv1.CronJob](objs, "CronJob", "metawire-inventory")
		if err == nil { // it reaches the endpoint as the sender does
			sends := d.Spec.JobTemplate.Spec.Template.Spec
			if diff := cmp.Diff(sends.Containers[0].Env, pod.Spec.Containers[0].Env); diff != "" || sends.DNSPolicy != pod.Spec.DNSPolicy {
				t.Errorf("%s: it is not as the sender: %s", set, diff)
			}
			for _, m := range sends.Containers[0].VolumeMounts {
				if mounts[m.Name] != m.MountPath {
					t.Errorf("%s: it lacks volume %s", set, m.Name)
				}
			}
		}
		if s := pod.Spec; s.ServiceAccountName != "" || *s.AutomountServiceAccountToken {
			t.Errorf("%s: it has rights: %+v", set, s)
		}
		if args := pod.Spec.Containers[0].Args; args[0] != "inventory" || path.Dir(args[2]) != mounts["config"] || path.Dir(args[4]) != mounts["report"] {
			t.Errorf("%s: args are %q", set, args)
		}
		if before, err := find[corev1.Pod](objs, "Pod", "metawire-test-stream"); err == nil {
			const weight = "helm.sh/hook-weight"
			if before.Annotations[weight] >= pod.Annotations[weight] {
				t.Errorf("the tests come in the order of %q and %q", before.Annotations[weight], pod.Annotations[weight])
			}
			if set == "a CronJob" && (pod.Spec.Tolerations == nil || pod.Spec.NodeSelector == nil) {
				t.Errorf("it is not placed: %+v", pod.Spec)
			}
		}
	}
}

// TestCredentials: mounted, and in no argument, variable or ConfigMap.
func TestCredentials(t *testing.T) {
	for name, tc := range map[string]struct{ values, secret string }{
		"made":     {"credentials: {mode: bearer, token: " + canary + "}", "metawire-inventory-credentials"},
		"existing": {"credentials: {mode: accessKeys, existingSecret: mine}", "mine"},
		"CronJob":  {"mode: CronJob, schedule: '@daily', credentials: {mode: bearer, token: " + canary + "}", "metawire-inventory-credentials"},
	} {
		pod := sender(t, shipping(tc.values))
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "inventory-credentials" })
		if i < 0 || pod.Volumes[i].Secret.SecretName != tc.secret {
			t.Errorf("%s: the credentials are not mounted", name)
			continue
		}
		// Else the kubelet would wait for a key that is missing, and say so nowhere
		// near the field.
		if pod.Volumes[i].Secret.Items != nil {
			t.Errorf("%s: only some keys are mounted", name)
		}
	}
	_, objs := mustRender(t, loadChart(t), shipping("credentials: {mode: accessKeys, accessKey: user, secretKey: "+canary+"}"))
	s, err := find[corev1.Secret](objs, "Secret", "metawire-inventory-credentials")
	if err != nil || string(s.Data["accessKey"]) != "user" || string(s.Data["secretKey"]) != canary {
		t.Errorf("the Secret holds %q, %v", s.Data, err)
	}
}

// TestSpool: the kubelet evicts who passes the limit, so the collector keeps
// well below it.
func TestSpool(t *testing.T) {
	for size, limit := range map[string]string{"128Mi": "256Mi", "3Gi": "6Gi"} {
		pod := sender(t, shipping("spool: {size: "+size+"}"))
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "inventory-spool" })
		if i < 0 || pod.Volumes[i].EmptyDir.SizeLimit.String() != limit {
			t.Errorf("%s: the spool's volume is %+v", size, pod.Volumes)
		}
	}
}

// TestProxy: for the endpoint, never for the API server.
func TestProxy(t *testing.T) {
	for _, mode := range []string{"", "mode: CronJob, schedule: '@daily', "} {
		env := map[string]string{}
		for _, e := range sender(t, shipping(mode+"proxy: {url: 'http://proxy:3128', except: .example}")).Containers[0].Env {
			env[e.Name] = e.Value
		}
		if env["HTTPS_PROXY"] != "http://proxy:3128" || env["NO_PROXY"] != "$(KUBERNETES_SERVICE_HOST),.example" {
			t.Errorf("the environment is %v", env)
		}
	}
	if env := sender(t, shipping("")).Containers[0].Env; env != nil {
		t.Errorf("without a proxy the environment is %v", env)
	}
}
