package oldcharts_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/tests/oldcharts"
)

// TestObjects: the charts make what the contract says that they make.
func TestObjects(t *testing.T) {
	firefly := []string{
		"ClusterRole infralight-role", "ClusterRoleBinding infralight-role-binding", "ConfigMap old-config", "CronJob old-cronjob",
		"Job old-collector-off-boarder", "Job old-collector-on-boarder", "Secret old-credentials", "ServiceAccount infralight-service-account",
	}
	collector := []string{
		"ClusterRole old-k8s-metacollector", "ClusterRoleBinding old-k8s-metacollector", "Deployment old-k8s-metacollector",
		"Service old-k8s-metacollector", "ServiceAccount old-k8s-metacollector",
	}
	for _, tc := range []struct {
		chart, values string
		want          []string
	}{
		{oldcharts.Metacollector, `{}`, collector},
		{oldcharts.Metacollector, `{fullnameOverride: x, serviceAccount: {create: false}, service: {create: false}, serviceMonitor: {create: true}, grafana: {dashboards: {enabled: true}}}`,
			[]string{"ClusterRole x", "ClusterRoleBinding x", "ConfigMap k8s-metacollector-grafana-dashboard", "Deployment x", "ServiceMonitor x"}},
		{oldcharts.Falco, `{}`, []string{"ConfigMap old"}},
		{oldcharts.Falco, `{collectors: {kubernetes: {enabled: true}}}`, slices.Sorted(slices.Values(append([]string{"ConfigMap old"}, collector...)))},
		{oldcharts.Firefly, `{accessKey: a, secretKey: b}`, firefly},
		{oldcharts.Firefly, `{existingFireFlyCredentialsSecret: mine}`, slices.DeleteFunc(slices.Clone(firefly), func(s string) bool { return strings.HasPrefix(s, "Secret") })},
		{oldcharts.Infralight, `{accessKey: a, secretKey: b}`, slices.DeleteFunc(slices.Clone(firefly), func(s string) bool { return strings.HasPrefix(s, "Job") })},
	} {
		if diff := cmp.Diff(tc.want, rendered(t, tc.chart, tc.values)); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tc.chart, tc.values, diff)
		}
	}
}

func rendered(t *testing.T, name, given string) []string {
	t.Helper()
	chart, err := oldcharts.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	values, err := chartutil.ReadValues([]byte(given))
	if err != nil {
		t.Fatal(err)
	}
	if err := chartutil.ProcessDependencies(chart, values); err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: "old", Namespace: "ns"}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	var made []string
	for _, file := range files {
		for _, text := range releaseutil.SplitManifests(file) {
			var o struct {
				Kind     string
				Metadata struct{ Name string }
			}
			if err := yaml.Unmarshal([]byte(text), &o); err != nil {
				t.Fatalf("%v:\n%s", err, text)
			}
			if o.Kind != "" {
				made = append(made, o.Kind+" "+o.Metadata.Name)
			}
		}
	}
	slices.Sort(made)
	return made
}
