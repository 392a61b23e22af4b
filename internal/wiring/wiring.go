// Package wiring holds the marks that a pod carries once the webhook has looked
// at it: the webhook and its init container write them, the collector and the
// command line read them. It decides nothing.
package wiring

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
)

// What stands on pods and namespaces.
const (
	// InjectAnnotation on a pod forces ("true") or forbids ("false") wiring; as
	// a label on a namespace only "false" has a meaning.
	InjectAnnotation = "metawire.dev/inject"
	// VersionAnnotation on a pod says which Falco it runs, where the image's tag
	// does not.
	VersionAnnotation = "metawire.dev/falco-version"
	// StatusAnnotation holds a Status, on every pod that the webhook looked at.
	StatusAnnotation = "metawire.dev/status"
	// CAAnnotation holds the PEM of the authorities that the pod's subscriber
	// trusts; a downwardAPI volume shows it to the containers.
	CAAnnotation = "metawire.dev/ca"
	// InitContainer is the name of the init container, last in a wired Falco pod.
	InitContainer = "metawire-wire"
	// Audience is what tokens for the collector are made for.
	Audience = "metawire.dev"
)

// Outcome is what came of a pod at admission.
type Outcome string

// The outcomes.
const (
	Wired      Outcome = "wired"      // a Falco pod: patched to subscribe
	Subscriber Outcome = "subscriber" // another pod that asked for it: endpoint, node name and CA in its environment
	StoodDown  Outcome = "stoodDown"  // left as it is, and nothing is missing: forbidden, configured by hand, or no Falco
	NotWired   Outcome = "notWired"   // a Falco pod that could not be patched, for the reason given
)

// Patched reports whether the pod was given more than its status.
func (o Outcome) Patched() bool { return o == Wired || o == Subscriber }

// Status is what the webhook did with a pod and why.
type Status struct {
	Version string  `json:"version"` // of the webhook
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason"` // one sentence
	// CAs are the fingerprints of the authorities in CAAnnotation.
	CAs []string `json:"cas,omitempty"`
}

// ParseStatus reads the annotation's value.
func ParseStatus(value string) (Status, error) {
	var s Status
	if err := json.Unmarshal([]byte(value), &s); err != nil {
		return Status{}, fmt.Errorf("annotation %s: %w", StatusAnnotation, err)
	}
	return s, nil
}

// String is the annotation's value.
func (s Status) String() string {
	b, _ := json.Marshal(s) // strings only: there is no error
	return string(b)
}

// Verdict is what the init container did: its termination message, JSON of at
// most 4 KiB.
type Verdict struct {
	// Wired says that Falco finds a fragment that makes it subscribe.
	Wired bool `json:"wired"`
	// Ticket says that the fragment carries one; without it the collector
	// decides by the pod's address.
	Ticket bool `json:"ticket"`
	// StoodDown says that it left an existing configuration of the plugin alone:
	// nothing is missing.
	StoodDown bool   `json:"stoodDown,omitempty"`
	Reason    string `json:"reason"` // one sentence
}

// ParseVerdict reads a termination message.
func ParseVerdict(message string) (Verdict, error) {
	var v Verdict
	if err := json.Unmarshal([]byte(message), &v); err != nil {
		return Verdict{}, fmt.Errorf("termination message of container %s: %w", InitContainer, err)
	}
	return v, nil
}

// String is the termination message.
func (v Verdict) String() string {
	b, _ := json.Marshal(v) // strings and flags only: there is no error
	return string(b)
}

// Fingerprints returns one for each certificate of a PEM bundle, in its order:
// the first 16 bytes of a SHA-256 in hexadecimal, of its public key and subject,
// both in DER. A client verifies with these two: an authority that is renewed
// with its key is the same. What cannot be parsed is left out, as clients do.
func Fingerprints(bundle []byte) []string {
	var all []string
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			sum := sha256.Sum256(append(bytes.Clone(c.RawSubjectPublicKeyInfo), c.RawSubject...))
			all = append(all, hex.EncodeToString(sum[:16]))
		}
	}
	return all
}

// Where the volumes of a wired pod are mounted, in our init container and in
// Falco's container alike; nothing of Falco's image is there.
const (
	GeneratedDir = "/run/metawire/generated" // emptyDir: fragment and library
	CADir        = "/run/metawire/ca"        // downwardAPI: CAFile
	TokenDir     = "/run/metawire/token"     // projected token, init container only

	FragmentFile = GeneratedDir + "/falco.yaml"
	LibraryFile  = GeneratedDir + "/libk8smeta.so"
	CAFile       = CADir + "/ca.crt"
	TokenFile    = TokenDir + "/token"
)

// TaskVariable is the environment variable that holds the init container's Task.
const TaskVariable = "METAWIRE_TASK"

// Task is what the webhook tells the init container, as JSON.
type Task struct {
	Host string `json:"host"` // DNS name of the collector's Service
	Port int    `json:"port"`
	TLS  bool   `json:"tls"` // verify it with CAFile; false is plaintext
	// Command is Falco's whole command line, as its container will run it but
	// for what the webhook appends, and WorkingDir where it runs, "" for /.
	Command    []string `json:"command"`
	WorkingDir string   `json:"workingDir,omitempty"`
	// Mounts are where Falco's container mounts what this one mounts too, and
	// Hidden where it mounts what this one does not see. The rest of Falco's
	// files are its image's.
	Mounts []string `json:"mounts,omitempty"`
	Hidden []string `json:"hidden,omitempty"`
	// FalcoVersion is that of Falco's image, "" if its tag does not tell.
	FalcoVersion string `json:"falcoVersion,omitempty"`
	// NodeVariable is the variable of Falco's container that holds the node's name.
	NodeVariable string `json:"nodeVariable"`
	Plugin       Plugin `json:"plugin"`
}

// Where the plugin's library comes from.
const (
	PluginRegistry     = "registry"     // its OCI artifact
	PluginImage        = "image"        // a file of an OCI image's layers
	PluginPreinstalled = "preinstalled" // a file of Falco's image
)

// Plugin says where the plugin's library comes from.
type Plugin struct {
	Source string `json:"source" yaml:"source"`
	// Reference, for registry, is the artifact without a tag: the version is
	// chosen by Falco's. A tag or digest that stands here decides instead.
	Reference string `json:"reference,omitempty" yaml:"reference"`
	// Image, for image, is the image's reference.
	Image string `json:"image,omitempty" yaml:"image"`
	// Path is the library's, for image within it, for preinstalled in Falco's.
	Path string `json:"path,omitempty" yaml:"path"`
	// PlainHTTP lets the registry be asked without TLS.
	PlainHTTP bool `json:"plainHTTP,omitempty" yaml:"plainHTTP"`
}
