// Package config holds the webhook's configuration file: its format, defaults,
// strict decoding and validation. It reads files and nothing else.
package config

import (
	"fmt"
	"os"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/strict"
)

// The apiVersion and kind that a configuration file must carry.
const (
	APIVersion = "metawire.dev/v1alpha1"
	Kind       = "WebhookConfig"
)

// Config is the webhook's configuration file.
type Config struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Address    string   `yaml:"address"` // "host:port" of the admission server
	Health     Listener `yaml:"health"`  // serves /healthz and /readyz
	Metrics    Listener `yaml:"metrics"` // serves /metrics
	// Configuration is the MutatingWebhookConfiguration whose caBundle the
	// webhook keeps current; empty: somebody else does.
	Configuration string         `yaml:"configuration"`
	TLS           certs.Settings `yaml:"tls"`    // selfManaged or files
	Stream        Stream         `yaml:"stream"` // what pods are wired to
	Image         Image          `yaml:"image"`  // of the init container
	Plugin        Plugin         `yaml:"plugin"`
}

// Listener is a TCP address to listen on, "host:port"; an empty host is every
// address of the machine.
type Listener struct {
	Address string `yaml:"address"`
}

// Stream is the collector's.
type Stream struct {
	Host string `yaml:"host"` // DNS name of the Service, good in every namespace
	Port int    `yaml:"port"`
	// Service is the same Service: its addresses are read for pods that cannot
	// resolve the name.
	Service certs.SecretRef `yaml:"service"`
}

// Image is a container image.
type Image struct {
	Name        string   `yaml:"name"`
	PullPolicy  string   `yaml:"pullPolicy"`  // Always, IfNotPresent (default) or Never
	PullSecrets []string `yaml:"pullSecrets"` // names; in the namespaces of the pods
}

// Plugin says where the library of Falco's plugin comes from.
type Plugin struct {
	Source    string `yaml:"source"`    // registry (default), image or preinstalled
	Reference string `yaml:"reference"` // for registry: the artifact
	Image     string `yaml:"image"`     // for image: the image
	Path      string `yaml:"path"`      // for image and preinstalled: the library in it, absolute
	PlainHTTP bool   `yaml:"plainHTTP"` // ask the registry without TLS
}

// Load reads and decodes the file; see Decode. It returns the bytes too, so
// that a caller can tell whether the file has changed since.
func Load(file string) (*Config, []byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Decode(data)
	if err != nil {
		return nil, data, fmt.Errorf("configuration file %s: %w", file, err)
	}
	return c, data, nil
}

// Decode decodes one YAML document, applies defaults and validates. An unknown
// key is an error that names the key and its line; every other error names the
// key, its value and what is allowed, all of them at once.
func Decode(data []byte) (*Config, error) {
	c := &Config{
		TLS:    certs.Settings{Mode: certs.ModeSelfManaged},
		Image:  Image{PullPolicy: "IfNotPresent"},
		Plugin: Plugin{Source: "registry"},
	}
	if err := strict.Decode(data, c); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) validate() error {
	var p strict.Problems
	p.OneOf("apiVersion", c.APIVersion, APIVersion)
	p.OneOf("kind", c.Kind, Kind)
	p.Address("address", c.Address)
	p.Address("health.address", c.Health.Address)
	p.Address("metrics.address", c.Metrics.Address)
	c.TLS.Validate(&p, "tls", certs.ModeSelfManaged, certs.ModeFiles)
	required := func(key, value, what string) {
		if value == "" {
			p.Add(key, value, what)
		}
	}
	required("stream.host", c.Stream.Host, "the DNS name of the collector's Service")
	if c.Stream.Port < 1 || c.Stream.Port > 65535 {
		p.Add("stream.port", c.Stream.Port, "a port, 1 to 65535")
	}
	required("stream.service.namespace", c.Stream.Service.Namespace, "the namespace of the collector's Service")
	required("stream.service.name", c.Stream.Service.Name, "the name of the collector's Service")
	required("image.name", c.Image.Name, "the image that this program is from")
	p.OneOf("image.pullPolicy", c.Image.PullPolicy, "Always", "IfNotPresent", "Never")
	p.OneOf("plugin.source", c.Plugin.Source, "registry", "image", "preinstalled")
	switch c.Plugin.Source {
	case "registry":
		required("plugin.reference", c.Plugin.Reference, "an OCI artifact, such as ghcr.io/falcosecurity/plugins/plugin/k8smeta")
	case "image":
		required("plugin.image", c.Plugin.Image, "an image that holds the library")
		required("plugin.path", c.Plugin.Path, "the library's path in the image")
	case "preinstalled":
		required("plugin.path", c.Plugin.Path, "the library's path in Falco's image")
	}
	return p.Err()
}
