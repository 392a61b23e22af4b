// Package config holds the collector's configuration file: its format,
// defaults, strict decoding and validation. It reads files and nothing else.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The apiVersion and kind that a configuration file must carry.
const (
	APIVersion = "metawire.dev/v1alpha1"
	Kind       = "CollectorConfig"
)

// Where the stream's certificate comes from.
const (
	TLSSelfManaged = "selfManaged" // the collector's own authority; not yet supported
	TLSFiles       = "files"       // PEM files, reloaded when they change
	TLSDisabled    = "disabled"    // plaintext
)

// How subscribers are authorized.
const (
	AuthorizationEnforce  = "enforce"  // not yet supported
	AuthorizationAudit    = "audit"    // not yet supported
	AuthorizationDisabled = "disabled" // every subscriber may read every node
)

// Inventory contracts.
const (
	ContractObjects = "objects"
	ContractRuns    = "runs"
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
	Inventory Inventory `yaml:"inventory"`
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
	TLS     TLS    `yaml:"tls"`
	Pacing  Pacing `yaml:"pacing"`
	// MaxAge is how long a stream may live before it is ended with ABORTED,
	// so that its subscriber connects anew; each stream ends at a random time
	// in the second half. Zero means never, otherwise at least a minute;
	// default 6h.
	MaxAge Duration `yaml:"maxAge"`
	// Plaintext is a second listener without TLS; not yet supported.
	Plaintext Listener `yaml:"plaintext"`
	// Authorization is enforce (default), audit or disabled.
	Authorization string `yaml:"authorization"`
}

// TLS says where the stream's certificate comes from.
type TLS struct {
	Mode string `yaml:"mode"` // selfManaged (default), files or disabled
	// For selfManaged: the Secret that replicas share, and the names in the
	// certificate.
	Secret   SecretRef `yaml:"secret"`
	DNSNames []string  `yaml:"dnsNames"`
	// For files: PEM files. CAFile is what subscribers verify the certificate
	// with; the collector itself does not need it.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	CAFile   string `yaml:"caFile"`
}

// SecretRef names a Secret.
type SecretRef struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
}

// Pacing bounds what one subscriber is sent, so that a Falco which applies no
// backpressure loses nothing.
type Pacing struct {
	Burst int     `yaml:"burst"` // events; default 1,000
	Rate  float64 `yaml:"rate"`  // events per second after the burst; default 2,000
}

// Inventory configures what is shipped to an HTTP endpoint.
type Inventory struct {
	Enabled  bool   `yaml:"enabled"`
	Endpoint string `yaml:"endpoint"` // URL
	Contract string `yaml:"contract"` // objects (default) or runs
	Schedule string `yaml:"schedule"` // cron syntax
	// Resources are the types to ship, "resource.group" as kubectl writes it.
	Resources []string `yaml:"resources"`
}

// Duration is a time.Duration, in the file written with its unit: 90s, 6h, or
// a bare 0.
type Duration time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a duration: must be 0 or a number with its unit, such as 6h or 90s", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

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
		Stream: Stream{
			TLS:           TLS{Mode: TLSSelfManaged},
			Pacing:        Pacing{Burst: DefaultPacingBurst, Rate: DefaultPacingRate},
			MaxAge:        Duration(DefaultMaxAge),
			Authorization: AuthorizationEnforce,
		},
		Inventory: Inventory{Contract: ContractObjects},
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(c); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty")
	} else if err != nil {
		return nil, readable(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file holds more than one YAML document: one is allowed")
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// readable words yaml's errors for people who do not know Go's type names.
func readable(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return err
	}
	lines := make([]string, len(te.Errors))
	for i, e := range te.Errors {
		lines[i] = unknownField.ReplaceAllString(e, `unknown key "$1"`)
	}
	return errors.New(strings.Join(lines, "; "))
}
