package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/strict"
)

// Inventory contracts.
const (
	ContractObjects = "objects"
	ContractRuns    = "runs"
)

// How pages are compressed.
const (
	CompressionGzip = "gzip"
	CompressionNone = "none"
)

// What happens to credentials within objects.
const (
	RedactionOn   = "on"   // digests and masks in their place
	RedactionNone = "none" // objects are sent as they are
)

// How the endpoint is told who sends.
const (
	CredentialsNone       = "none"
	CredentialsBearer     = "bearer"     // a token
	CredentialsAccessKeys = "accessKeys" // a login, which gives tokens
)

// Inventory configures what is shipped to an HTTP endpoint.
type Inventory struct {
	Enabled bool `yaml:"enabled"`
	// Endpoint is the URL that runs are sent to: https, or http if the host is
	// loopback or Insecure is true.
	Endpoint string `yaml:"endpoint"`
	Insecure bool   `yaml:"insecure"`
	Contract string `yaml:"contract"` // objects (default) or runs
	// LoginEndpoint is the URL before /account/access_keys/login, where access
	// keys are changed for a token; default Endpoint.
	LoginEndpoint string `yaml:"loginEndpoint"`
	// Schedule says in cron's five fields, or as @hourly and the like, when runs
	// begin; default every quarter of an hour. A run that is due while another
	// goes on is left out.
	Schedule string `yaml:"schedule"`
	TimeZone string `yaml:"timeZone"` // of Schedule: a name of the IANA database; default UTC
	// Jitter delays each run by a random time up to this, so that clusters do not
	// come together; default 1m.
	Jitter strict.Duration `yaml:"jitter"`
	// Resources are the types to ship, "resource.group" as kubectl writes it.
	Resources []string `yaml:"resources"`
	// CustomResources ships the objects of every CustomResourceDefinition of
	// CustomResourceGroups too, of every group if that is empty.
	CustomResources      bool     `yaml:"customResources"`
	CustomResourceGroups []string `yaml:"customResourceGroups"`
	// HelmReleases reports Helm releases, which are in Secrets: these must be in
	// Resources.
	HelmReleases bool `yaml:"helmReleases"`
	// Changes sends what has changed since the last acknowledged run, and what is
	// gone; with the contract objects only.
	Changes bool `yaml:"changes"`
	// CompleteEvery is how many runs make one that sends everything, with Changes;
	// default 24.
	CompleteEvery int `yaml:"completeEvery"`
	// PageBytes is how much JSON makes a page; default 1,200,000.
	PageBytes Bytes `yaml:"pageBytes"`
	// MaxObjectBytes is the JSON of the largest object that is sent, at least
	// PageBytes; default 1,500,000.
	MaxObjectBytes Bytes       `yaml:"maxObjectBytes"`
	Compression    string      `yaml:"compression"` // gzip (default) or none
	Redaction      Redaction   `yaml:"redaction"`
	Spool          Spool       `yaml:"spool"`
	Credentials    Credentials `yaml:"credentials"`
	// CAFile holds the authorities, PEM, that the endpoint's certificate is
	// checked with besides the system's. Proxies come from the environment:
	// HTTPS_PROXY, HTTP_PROXY, NO_PROXY.
	CAFile string `yaml:"caFile"`
	State  State  `yaml:"state"`
	// OverrideUniqueClusterID tells an endpoint of the contract runs that another
	// cluster takes over the cluster id.
	OverrideUniqueClusterID bool `yaml:"overrideUniqueClusterId"`
}

// Redaction says what happens to credentials within objects.
type Redaction struct {
	Mode string `yaml:"mode"` // on (default) or none
	// Secret holds the key of digests, under "key"; it is filled if it is empty.
	// KeyFile is such a key in a file, of 32 bytes at least. Without either each
	// process makes a key of its own: digests cannot be compared between two.
	Secret  certs.SecretRef `yaml:"secret"`
	KeyFile string          `yaml:"keyFile"`
}

// Spool keeps pages that could not be delivered until the next run.
type Spool struct {
	Directory string `yaml:"directory"` // empty, the default, is no spool
	MaxBytes  Bytes  `yaml:"maxBytes"`  // default 128Mi
}

// Credentials say how the endpoint is told who sends. The files are read at the
// start, and again when a token is refused.
type Credentials struct {
	Mode string `yaml:"mode"` // none (default), bearer or accessKeys
	// For bearer.
	TokenFile string `yaml:"tokenFile"`
	// For accessKeys.
	AccessKeyFile string `yaml:"accessKeyFile"`
	SecretKeyFile string `yaml:"secretKeyFile"`
	// AccessKey and SecretKey are those of the environment, instead of files: see
	// DecodeInventory.
	AccessKey string `yaml:"-"`
	SecretKey string `yaml:"-"`
}

// State names what the collectors of a release keep in the cluster: a Lease that
// says who sends, a ConfigMap with the last report, and ConfigMaps whose names
// begin with Index and hold what was sent. Without a namespace nothing is kept,
// which is for single runs.
type State struct {
	Namespace string `yaml:"namespace"`
	Lease     string `yaml:"lease"`
	Report    string `yaml:"report"`
	Index     string `yaml:"index"`
}

func defaultInventory() Inventory {
	return Inventory{
		Contract: ContractObjects, Schedule: "*/15 * * * *", TimeZone: "UTC", Jitter: strict.Duration(time.Minute),
		CompleteEvery: 24, PageBytes: 1_200_000, MaxObjectBytes: 1_500_000, Compression: CompressionGzip,
		Redaction: Redaction{Mode: RedactionOn}, Spool: Spool{MaxBytes: 128 << 20}, Credentials: Credentials{Mode: CredentialsNone},
	}
}

// Bytes is a size in bytes, in the file a number, or one with a unit of
// Kubernetes' such as 128Mi.
type Bytes int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	q, err := resource.ParseQuantity(n.Value)
	if err != nil || q.Sign() < 0 || q.Value() > 1<<50 {
		return fmt.Errorf("line %d: %q is not a size: must be a number of bytes, or one with its unit, such as 128Mi", n.Line, n.Value)
	}
	*b = Bytes(q.Value())
	return nil
}

// Readable reports which file, of those that the configuration names, cannot be
// used now: a key that is missing in a mounted Secret is such a file.
func (i *Inventory) Readable() error {
	for _, f := range []struct{ key, file string }{
		{"credentials.tokenFile", i.Credentials.TokenFile},
		{"credentials.accessKeyFile", i.Credentials.AccessKeyFile},
		{"credentials.secretKeyFile", i.Credentials.SecretKeyFile},
		{"redaction.keyFile", i.Redaction.KeyFile},
		{"caFile", i.CAFile},
	} {
		if f.file == "" {
			continue
		}
		data, err := os.ReadFile(f.file)
		if err == nil && len(bytes.TrimSpace(data)) == 0 {
			err = fmt.Errorf("%s is empty", f.file)
		}
		if err != nil {
			return fmt.Errorf("inventory.%s: %w: the Secret that it is mounted from must have the key %q", f.key, err, filepath.Base(f.file))
		}
	}
	return nil
}
