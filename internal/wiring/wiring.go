// Package wiring holds the marks that a pod carries once the webhook has looked
// at it: the webhook and its init container write them, the collector and the
// command line read them. It decides nothing.
package wiring

import (
	"crypto/sha256"
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
	StoodDown  Outcome = "stoodDown"  // left as it is, for the reason given
)

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
// the first 16 bytes of the SHA-256 of its DER, in hexadecimal.
func Fingerprints(bundle []byte) []string {
	var all []string
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			sum := sha256.Sum256(block.Bytes)
			all = append(all, hex.EncodeToString(sum[:16]))
		}
	}
	return all
}
