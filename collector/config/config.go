// Package config holds the collector's configuration file: its format,
// defaults, strict decoding and validation. It reads files and nothing else.
package config

import (
	"cmp"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/strict"
)

// The apiVersion and kind that a configuration file must carry.
const (
	APIVersion = "metawire.dev/v1alpha1"
	Kind       = "CollectorConfig"
)

// How subscribers are authorized.
const (
	AuthorizationEnforce  = "enforce"  // who may not read a node is refused
	AuthorizationAudit    = "audit"    // ... is logged, counted and served
	AuthorizationDisabled = "disabled" // every subscriber may read every node
)

// Defaults of what Kubernetes need not see. Addresses have none: ports belong
// to the chart's values.
const (
	// DefaultPacingBurst and DefaultPacingRate are what stock Falco drains
	// without loss: its queue holds 4,096 events (docs/stream.md).
	DefaultPacingBurst = 1000
	DefaultPacingRate  = 2000
	// DefaultMaxAge spreads subscribers over replicas again after a rollout.
	DefaultMaxAge = 6 * time.Hour
)

// Config is the collector's configuration file.
type Config struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	// ClusterID names the cluster to inventory endpoints: ^[a-z0-9-_]+$,
	// required when the inventory is enabled.
	ClusterID string    `yaml:"clusterID"`
	Health    Listener  `yaml:"health"`  // serves /healthz and /readyz
	Metrics   Listener  `yaml:"metrics"` // serves /metrics
	Stream    Stream    `yaml:"stream"`
	Report    Report    `yaml:"report"`
	Inventory Inventory `yaml:"inventory"`
}

// Report configures what the collector tells of other pods.
type Report struct {
	// UnwiredPods has Falco pods that run unwired reported as Events and in
	// metrics; default false, for clusters without the webhook.
	UnwiredPods bool `yaml:"unwiredPods"`
	// NamespaceSelector is the webhook's: the pods of namespaces that do not
	// match miss nothing. Whatever it says, the webhook leaves kube-system and
	// namespaces with the label metawire.dev/inject: "false" alone; default: no
	// others.
	NamespaceSelector Selector `yaml:"namespaceSelector"`
}

// Selector is a label selector as Kubernetes writes it; an empty one matches
// everything.
type Selector struct {
	MatchLabels      map[string]string `yaml:"matchLabels"`
	MatchExpressions []Expression      `yaml:"matchExpressions"`
}

// Expression is one requirement of a Selector.
type Expression struct {
	Key      string   `yaml:"key"`
	Operator string   `yaml:"operator"` // In, NotIn, Exists or DoesNotExist
	Values   []string `yaml:"values"`
}

// Selector returns it in the form that matches labels. A configuration that was
// decoded has none that gives an error.
func (s *Selector) Selector() (labels.Selector, error) {
	whole := metav1.LabelSelector{MatchLabels: s.MatchLabels}
	for _, e := range s.MatchExpressions {
		whole.MatchExpressions = append(whole.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values,
		})
	}
	return metav1.LabelSelectorAsSelector(&whole)
}

// Listener is a TCP address to listen on, "host:port"; an empty host is every
// address of the machine.
type Listener struct {
	Address string `yaml:"address"`
}

// Stream configures the gRPC service.
type Stream struct {
	Enabled bool   `yaml:"enabled"`
	Address string `yaml:"address"` // "host:port"
	// TLS says where the certificate comes from: selfManaged (default), files or
	// disabled, which is plaintext.
	TLS    certs.Settings `yaml:"tls"`
	Pacing Pacing         `yaml:"pacing"`
	// MaxAge is how long a stream may live before it is ended with ABORTED,
	// so that its subscriber connects anew; each stream ends at a random time
	// in the second half. Zero means never, otherwise at least a minute;
	// default 6h.
	MaxAge strict.Duration `yaml:"maxAge"`
	// Plaintext is a second listener without TLS, for subscribers that cannot
	// be given a CA; no address, the default, is no such listener.
	Plaintext Listener `yaml:"plaintext"`
	// Authorization is enforce (default), audit or disabled.
	Authorization string  `yaml:"authorization"`
	Tickets       Tickets `yaml:"tickets"`
	// TrustNodeAddresses says whether an address that a node's whole host
	// network shares proves that a subscriber is on that node; default true.
	TrustNodeAddresses bool `yaml:"trustNodeAddresses"`
}

// Tickets configures what wired pods prove with which node they are on.
type Tickets struct {
	// Secret holds the key that all replicas share; the collector fills it if it
	// is empty. Without a name no tickets are given, and none is asked for.
	Secret certs.SecretRef `yaml:"secret"`
}

// Pacing bounds what one subscriber is sent, so that a Falco which applies no
// backpressure loses nothing.
type Pacing struct {
	Burst int     `yaml:"burst"` // events; default 1,000
	Rate  float64 `yaml:"rate"`  // events per second after the burst; default 2,000
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

// LoadInventory is Load for a single run of the inventory; see DecodeInventory.
func LoadInventory(file string, getenv func(string) string) (*Config, error) {
	return loadInventory(file, getenv, true)
}

// LoadDryRun is LoadInventory for a run that sends nothing: clusterID and
// inventory.endpoint may be left out.
func LoadDryRun(file string, getenv func(string) string) (*Config, error) {
	return loadInventory(file, getenv, false)
}

func loadInventory(file string, getenv func(string) string, sends bool) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := decodeInventory(data, getenv, sends)
	if err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", file, err)
	}
	return c, nil
}

// Decode decodes one YAML document, applies defaults and validates. An unknown
// key is an error that names the key and its line; every other error names the
// key, its value and what is allowed, all of them at once.
func Decode(data []byte) (*Config, error) {
	c, err := decode(data)
	if err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// DecodeInventory is Decode for a single run of the inventory: what only a
// daemon needs may be left out, and cluster id and access keys may come from the
// environment variables METAWIRE_CLUSTER_ID, METAWIRE_ACCESS_KEY and
// METAWIRE_SECRET_KEY, which win.
func DecodeInventory(data []byte, getenv func(string) string) (*Config, error) {
	return decodeInventory(data, getenv, true)
}

func decodeInventory(data []byte, getenv func(string) string, sends bool) (*Config, error) {
	c, err := decode(data)
	if err != nil {
		return nil, err
	}
	c.ClusterID = cmp.Or(getenv("METAWIRE_CLUSTER_ID"), c.ClusterID)
	if access, secret := getenv("METAWIRE_ACCESS_KEY"), getenv("METAWIRE_SECRET_KEY"); access != "" && secret != "" {
		c.Inventory.Credentials = Credentials{Mode: CredentialsAccessKeys, AccessKey: access, SecretKey: secret}
	}
	var p strict.Problems
	c.validateFile(&p)
	c.validateInventory(&p, sends)
	if err := p.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

func decode(data []byte) (*Config, error) {
	c := &Config{
		Stream: Stream{
			TLS:           certs.Settings{Mode: certs.ModeSelfManaged},
			Pacing:        Pacing{Burst: DefaultPacingBurst, Rate: DefaultPacingRate},
			MaxAge:        strict.Duration(DefaultMaxAge),
			Authorization: AuthorizationEnforce,

			TrustNodeAddresses: true,
		},
		Inventory: defaultInventory(),
	}
	if err := strict.Decode(data, c); err != nil {
		return nil, err
	}
	return c, nil
}
