package chart_test

import (
	"encoding/json"
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/metawire/metawire/charts"
)

// settings are the values that a property test varies.
type settings struct {
	stream, inventory bool
	ships             ships
	add, remove       []string
	clusterID         string
	ports             [4]int // stream, health, metrics, plaintext
	burst             int    // 0: not set
	rate              float64
	maxAge            string
	replicas          int

	authorization      string
	trustNodeAddresses bool
	plaintext          bool
	tls                string
	issuer             bool // of the user's
	webhook            bool
	webhookPorts       [3]int // admission, health, metrics
	plugin             map[string]any
	namespaces         map[string]any // the user's selector
	pullSecrets        []string       // of the webhook
	ownPullSecrets     []string
}

// wires says whether the webhook is installed.
func (s settings) wires() bool { return s.webhook && s.stream }

func (s settings) values() string {
	pacing := map[string]any{}
	if s.burst > 0 {
		pacing["burst"] = s.burst
	}
	if s.rate > 0 {
		pacing["rate"] = s.rate
	}
	tls := map[string]any{"source": s.tls}
	switch {
	case s.tls == "provided":
		tls["provided"] = map[string]any{"secretName": "mine"}
	case s.issuer:
		tls["certManager"] = map[string]any{"issuerRef": map[string]any{"name": "corporate", "kind": "ClusterIssuer"}}
	}
	named := func(names []string) []any {
		objects := []any{}
		for _, name := range names {
			objects = append(objects, map[string]any{"name": name})
		}
		return objects
	}
	v, err := json.Marshal(map[string]any{
		"clusterID":   s.clusterID,
		"addTypes":    s.add,
		"removeTypes": s.remove,

		"imagePullSecrets": named(s.ownPullSecrets),

		"stream": map[string]any{
			"enabled": s.stream, "port": s.ports[0], "pacing": pacing, "maxAge": s.maxAge,
			"authorization": s.authorization, "trustNodeAddresses": s.trustNodeAddresses,
			"plaintext": map[string]any{"enabled": s.plaintext, "port": s.ports[3]},
		},
		"tls":       tls,
		"inventory": s.ships.values(s.inventory),
		"collector": map[string]any{
			"replicas": s.replicas,
			"ports":    map[string]any{"health": s.ports[1], "metrics": s.ports[2]},
		},
		"webhook": map[string]any{
			"enabled": s.webhook, "port": s.webhookPorts[0], "plugin": s.plugin, "imagePullSecrets": named(s.pullSecrets),
			"namespaceSelector": s.namespaces,
			"ports":             map[string]any{"health": s.webhookPorts[1], "metrics": s.webhookPorts[2]},
		},
	})
	if err != nil {
		return err.Error()
	}
	return string(v)
}

// unknown types collide with each other and with known ones on purpose.
var unknownTypes = []string{
	"applications.argoproj.io", "applications.app.k8s.io", "applications",
	"pods.metrics.k8s.io", "deployments.extensions", "widgets", "widgets.example.com", "a-b", "a-b.c", "a.c",
}

func drawSettings(types []charts.ResourceType) *rapid.Generator[settings] {
	names := slices.Clone(unknownTypes)
	for _, rt := range types {
		names = append(names, rt.Name(), rt.Resource)
	}
	some := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(names), rapid.SampledFrom(unknownTypes)), 0, 8)
	ports := func(n int) *rapid.Generator[[]int] {
		return rapid.SliceOfNDistinct(rapid.IntRange(1024, 65535), n, n, rapid.ID)
	}
	return rapid.Custom(func(t *rapid.T) settings {
		s := settings{
			stream:    rapid.Bool().Draw(t, "stream"),
			add:       some.Draw(t, "add"),
			remove:    some.Draw(t, "remove"),
			clusterID: rapid.StringMatching(`[a-z0-9_-]{1,20}`).Draw(t, "clusterID"),
			burst:     rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 1000000)).Draw(t, "burst"),
			maxAge:    rapid.SampledFrom([]string{"", "0", "1m", "6h", "90m", "1h30m", "99999h"}).Draw(t, "maxAge"),
			replicas:  rapid.IntRange(1, 100).Draw(t, "replicas"),

			authorization:      rapid.SampledFrom(authorizations).Draw(t, "authorization"),
			trustNodeAddresses: rapid.Bool().Draw(t, "trustNodeAddresses"),
			plaintext:          rapid.Bool().Draw(t, "plaintext"),
			tls:                rapid.SampledFrom(tlsSources).Draw(t, "tls"),
			webhook:            rapid.Bool().Draw(t, "webhook"),
			plugin:             rapid.SampledFrom(plugins).Draw(t, "plugin"),
			namespaces:         rapid.SampledFrom(namespaceSelectors).Draw(t, "namespaces"),
			pullSecrets:        rapid.SampledFrom([][]string{nil, {"one"}, {"two", "1"}}).Draw(t, "pullSecrets"),
			ownPullSecrets:     rapid.SampledFrom([][]string{nil, {"own"}}).Draw(t, "ownPullSecrets"),
		}
		s.issuer = s.tls == "certManager" && rapid.Bool().Draw(t, "issuer")
		s.inventory = !s.stream || rapid.Bool().Draw(t, "inventory")
		s.ships = drawShips.Draw(t, "ships")
		s.rate = rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(math.SmallestNonzeroFloat64, 1000000)).Draw(t, "rate")
		copy(s.ports[:], ports(4).Draw(t, "ports"))
		copy(s.webhookPorts[:], ports(3).Draw(t, "webhookPorts"))
		return s
	})
}

var (
	authorizations     = []string{"enforce", "audit", "disabled"}
	tlsSources         = []string{"selfManaged", "certManager", "provided"}
	namespaceSelectors = []map[string]any{
		{},
		{"matchLabels": map[string]any{"team": "security", "1": "2"}},
		{"matchExpressions": []any{map[string]any{"key": "env", "operator": "In", "values": []any{"prod", "true"}}}},
		{
			"matchLabels":      map[string]any{"team": "security"},
			"matchExpressions": []any{map[string]any{"key": "env", "operator": "Exists"}, map[string]any{"key": "a/b", "operator": "NotIn", "values": []any{"c"}}},
		},
	}
	// Each as the webhook's configuration must have it.
	plugins = []map[string]any{
		{"source": "registry", "reference": "registry.local:5000/k8smeta"},
		{"source": "registry", "reference": "registry.local:5000/k8smeta:0.4.1", "plainHTTP": true},
		{"source": "image", "image": "registry.local/falco-plugins:1", "path": "/plugins/libk8smeta.so"},
		{"source": "image", "image": "registry.local/falco-plugins:1", "path": "/x.so", "plainHTTP": true},
		{"source": "preinstalled", "path": "/usr/share/falco/plugins/libk8smeta.so"},
	}
)
