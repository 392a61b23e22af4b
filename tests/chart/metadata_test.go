package chart_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
)

// TestRenderingsAreTheSame: nothing is random, nothing depends on the time or on
// the order of a map.
func TestRenderingsAreTheSame(t *testing.T) {
	first := renderAll(t)
	for name, again := range renderAll(t) {
		if d := cmp.Diff(first[name].files, again.files); d != "" {
			t.Errorf("%s (-first +again):\n%s", name, d)
		}
	}
}

// TestNamespaceOverride: all objects are as those of a release in that
// namespace.
func TestNamespaceOverride(t *testing.T) {
	ch := loadChart(t)
	for _, sets := range []map[string]string{valueSets, inventorySets} {
		for name, values := range sets {
			want, err := renderAs(release, "other", engine.Engine{Strict: true}, ch, values)
			if err != nil {
				t.Fatal(err)
			}
			overridden, err := renderAs(release, namespace, engine.Engine{Strict: true}, ch, withValue(t, values, "namespaceOverride", "other"))
			if err != nil {
				t.Fatal(err)
			}
			for _, files := range []map[string]string{want, overridden} { // these have the release's own
				delete(files, "NOTES.txt")
				delete(files, "templates/extra-objects.yaml")
			}
			if d := cmp.Diff(want, overridden); d != "" {
				t.Errorf("%s (-installed there +namespaceOverride):\n%s", name, d)
			}
		}
	}
}

// TestCommonLabels: all objects and pods have them, beside the chart's own, and
// no selector changes.
func TestCommonLabels(t *testing.T) {
	for name, set := range renderAll(t) {
		values := valueSets[name] + inventorySets[name]
		_, objs := mustRender(t, loadChart(t), withValue(t, values, "commonLabels", map[string]any{"cost-center": "7", "app.kubernetes.io/name": "theirs"}))
		for i, o := range objs {
			if o.GetLabels() == nil && (o.GetName() == "metawire-extra" || o.GetName() == "metawire-text") {
				continue // the user's own objects
			}
			pod, err := podOf(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []*unstructured.Unstructured{o, pod} {
				if o == nil {
					continue
				}
				if l := o.GetLabels(); l["cost-center"] != "7" || l["app.kubernetes.io/name"] == "theirs" {
					t.Errorf("%s: labels of %s %s: %v", name, o.GetKind(), o.GetName(), l)
				}
			}
			if d := cmp.Diff(selectorOf(set.objects[i]), selectorOf(o)); d != "" {
				t.Errorf("%s: selector of %s %s (-without +with):\n%s", name, o.GetKind(), o.GetName(), d)
			}
		}
	}
}

func selectorOf(o *unstructured.Unstructured) any {
	spec, _ := o.Object["spec"].(map[string]any)
	return []any{spec["selector"], spec["podSelector"]}
}

// withValue returns the values with one more at the top.
func withValue(t *testing.T, values, key string, value any) string {
	t.Helper()
	all, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	all[key] = value
	text, err := all.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestServices: what both Services say of address families and users, and whom
// the collectors' leads to whom.
func TestServices(t *testing.T) {
	const values = `{ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4],
		collector: {service: {annotations: {a: b}, trafficDistribution: PreferClose}}, webhook: {service: {annotations: {a: b}}}}`
	_, plain := mustRender(t, loadChart(t), "")
	_, objs := mustRender(t, loadChart(t), values)
	for _, name := range []string{"metawire-collector", "metawire-webhook"} {
		s, err := find[corev1.Service](plain, "Service", name)
		if err != nil {
			t.Fatal(err)
		}
		want := s.DeepCopy()
		if s.Spec.IPFamilyPolicy != nil || s.Spec.IPFamilies != nil || s.Spec.TrafficDistribution != nil || s.Annotations != nil || s.Spec.Type != corev1.ServiceTypeClusterIP {
			t.Errorf("%s: not the cluster's defaults: %+v", name, s)
		}
		want.Annotations = map[string]string{"a": "b"}
		want.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
		want.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
		if name == "metawire-collector" {
			want.Spec.TrafficDistribution = ptr.To(corev1.ServiceTrafficDistributionPreferClose)
		}
		got, err := find[corev1.Service](objs, "Service", name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestArtifactHub: what Chart.yaml tells catalogues is true of this chart.
func TestArtifactHub(t *testing.T) {
	ch := loadChart(t)
	m := ch.Metadata
	if want := fmt.Sprintf("image: ghcr.io/metawire/metawire:%s\n", m.AppVersion); !strings.Contains(m.Annotations["artifacthub.io/images"], want) {
		t.Errorf("artifacthub.io/images has not %q: %s", want, m.Annotations["artifacthub.io/images"])
	}
	for _, key := range []string{"artifacthub.io/category", "artifacthub.io/changes", "artifacthub.io/license", "artifacthub.io/links"} {
		if m.Annotations[key] == "" {
			t.Errorf("%s is missing", key)
		}
	}
	if m.Home == "" || m.Icon == "" || len(m.Sources) == 0 || len(m.Maintainers) == 0 || len(m.Keywords) == 0 {
		t.Errorf("Chart.yaml lacks what catalogues show: %+v", m)
	}
	if objs := ch.CRDObjects(); len(objs) > 0 {
		t.Errorf("the chart has CustomResourceDefinitions, which its annotations do not tell of: %v", objs)
	}
}

// TestLint: helm lint has nothing to say.
func TestLint(t *testing.T) {
	result := action.NewLint().Run([]string{"../../charts/metawire"}, nil)
	for _, m := range result.Messages {
		t.Error(m)
	}
	if result.TotalChartsLinted != 1 {
		t.Errorf("%d charts were looked at: %v", result.TotalChartsLinted, result.Errors)
	}
}
