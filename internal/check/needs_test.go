package check

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/rights"
	"github.com/metawire/metawire/migrate/release"
)

// TestNeeds: what is asked for each daemon is what the chart grants it beside the
// configured types, no less and no more, whatever is configured.
func TestNeeds(t *testing.T) {
	const inventory = `clusterID: x, inventory: {enabled: true, endpoint: "https://e", `
	for name, values := range map[string]string{
		"as it comes":            "{}",
		"cert-manager":           "{tls: {source: certManager}}",
		"a certificate of yours": "{tls: {source: provided, provided: {secretName: mine}}}",
		"no webhook":             "{webhook: {enabled: false}}",
		"the collectors send":    "{" + inventory + "changes: true}}",
		"not redacted":           "{" + inventory + "redaction: none}}",
		"a CronJob":              "{" + inventory + `changes: true, mode: CronJob, schedule: "@daily"}}`,
		"the inventory alone":    "{" + inventory + "}, stream: {enabled: false}}",
		"other names":            "{" + inventory + "changes: true}, fullnameOverride: mw, namespaceOverride: elsewhere}",
	} {
		t.Run(name, func(t *testing.T) {
			documents := rendered(t, values)
			if d := cmp.Diff(grants(t, documents), needs(t, documents)); d != "" {
				t.Errorf("-granted +asked for:\n%s", d)
			}
		})
	}
}

// rendered are the objects of the chart but those of its tests, as YAML.
func rendered(t *testing.T, values string) (documents [][]byte) {
	t.Helper()
	chart, err := release.Chart()
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, v, chartutil.ReleaseOptions{Name: "metawire", Namespace: "ns", IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if strings.Contains(name, "/tests/") || strings.HasSuffix(name, ".txt") {
			continue
		}
		r := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
		for {
			document, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			documents = append(documents, document)
		}
	}
	return documents
}

// decoded are the objects of those kinds.
func decoded[T any](t *testing.T, documents [][]byte, kinds ...string) (all []T) {
	t.Helper()
	for _, document := range documents {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(kinds, kind.Kind) {
			continue
		}
		var o T
		if err := yaml.UnmarshalStrict(document, &o); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// grants are what the roles of each part of the release give, but for those of
// the configured types.
func grants(t *testing.T, documents [][]byte) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, role := range decoded[rbacv1.Role](t, documents, "Role", "ClusterRole") {
		component := role.Labels["app.kubernetes.io/component"]
		types := role.Kind == "ClusterRole" && (strings.HasSuffix(role.Name, "-collector") || strings.HasSuffix(role.Name, "-inventory-types"))
		if types || component == "viewer" {
			continue
		}
		for _, r := range flat(role.Namespace, role.Rules) {
			all[component] = append(all[component], r.String())
		}
	}
	return sorted(all)
}

// flat are the single rights of rules.
func flat(namespace string, rules []rbacv1.PolicyRule) (all []rights.Right) {
	for _, rule := range rules {
		names := rule.ResourceNames
		if names == nil {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				resource, sub, _ := strings.Cut(resource, "/")
				for _, name := range names {
					all = append(all, rights.Of(rights.Right{Group: group, Resource: resource, Sub: sub, Namespace: namespace, Name: name}, rule.Verbs...)...)
				}
			}
		}
	}
	return all
}

// needs are what is asked for each part of it, by its configuration.
func needs(t *testing.T, documents [][]byte) map[string][]string {
	t.Helper()
	var ns, service string
	for _, s := range decoded[corev1.Service](t, documents, "Service") {
		if s.Labels["app.kubernetes.io/component"] == installation.Collector {
			ns, service = s.Namespace, s.Name
		}
	}
	all := map[string][]string{}
	add := func(component string, some []rights.Right) {
		for _, r := range some {
			all[component] = append(all[component], r.String())
		}
	}
	var c struct {
		configuration

		Inventory struct {
			installation.Sender

			Enabled bool `json:"enabled"`
		} `json:"inventory"`
	}
	var w webhookConfiguration
	for _, m := range decoded[corev1.ConfigMap](t, documents, "ConfigMap") {
		c.Inventory.Enabled = false
		if err := errors.Join(yaml.Unmarshal([]byte(m.Data["collector.yaml"]), &c), yaml.Unmarshal([]byte(m.Data["webhook.yaml"]), &w)); err != nil {
			t.Fatal(err)
		}
		if c.Inventory.Enabled {
			add(installation.Inventory, senderRights(m.Namespace, &c.Inventory.Sender))
		}
		if m.Labels["app.kubernetes.io/component"] == installation.Collector && c.Stream.Enabled {
			add(installation.Collector, c.collectorRights(ns))
		}
	}
	if c.Stream.Enabled && c.Report.UnwiredPods {
		add(installation.Webhook, c.webhookRights(ns, service+"."+ns+".svc", w.Configuration))
	}
	return sorted(all)
}

func sorted(all map[string][]string) map[string][]string {
	for _, lines := range all {
		slices.Sort(lines)
	}
	return all
}
