package config

import (
	"strings"
	"testing"
)

const valid = `apiVersion: metawire.dev/v1alpha1
kind: WebhookConfig
address: ":9443"
health: {address: ":8081"}
metrics: {address: ":8080"}
configuration: zz-metawire-webhook
tls: {mode: files, certFile: a, keyFile: b, caFile: c}
stream: {host: metawire-collector.metawire.svc, port: 45000, service: {namespace: metawire, name: metawire-collector}}
image: {name: "ghcr.io/metawire/metawire:1"}
plugin: {source: registry, reference: ghcr.io/x/k8smeta}
`

func TestDecodeAppliesDefaults(t *testing.T) {
	c, err := Decode([]byte(strings.Replace(valid, "source: registry, ", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Image.PullPolicy != "IfNotPresent" || c.Plugin.Source != "registry" {
		t.Errorf("defaults: %+v, %+v", c.Image, c.Plugin)
	}
}

// TestDecodeRefuses holds for every mistake the words that the error must have.
func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"unknown key":            {"kind:", "colour: red\nkind:", []string{"line 2", `unknown key "colour"`}},
		"wrong kind":             {"WebhookConfig", "CollectorConfig", []string{"kind", "CollectorConfig", Kind}},
		"no address":             {`address: ":9443"`, "", []string{"address", "host:port"}},
		"plaintext":              {"mode: files", "mode: disabled", []string{"tls.mode", "disabled", "selfManaged", "files"}},
		"files without key":      {"keyFile: b, ", "", []string{"tls.keyFile"}},
		"self-managed, no names": {"mode: files, certFile: a, keyFile: b, caFile: c", "mode: selfManaged, secret: {namespace: a, name: b}", []string{"tls.dnsNames"}},
		"no host":                {"host: metawire-collector.metawire.svc, ", "", []string{"stream.host"}},
		"port out of range":      {"45000", "99999", []string{"stream.port", "99999", "65535"}},
		"no service":             {", name: metawire-collector", "", []string{"stream.service.name"}},
		"no image":               {`name: "ghcr.io/metawire/metawire:1"`, "", []string{"image.name"}},
		"unknown pull policy":    {`:1"`, `:1", pullPolicy: Sometimes`, []string{"image.pullPolicy", "Sometimes", "Never"}},
		"unknown source":         {"source: registry", "source: web", []string{"plugin.source", "web", "preinstalled"}},
		"registry, no reference": {", reference: ghcr.io/x/k8smeta", "", []string{"plugin.reference"}},
		"image, no path":         {"source: registry", "source: image, image: a", []string{"plugin.path"}},
		"preinstalled, no path":  {"source: registry", "source: preinstalled", []string{"plugin.path"}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(valid, c.old) {
				t.Fatalf("%q is not in the valid configuration", c.old)
			}
			_, err := Decode([]byte(strings.Replace(valid, c.old, c.new, 1)))
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q: %v", w, err)
				}
			}
		})
	}
}
