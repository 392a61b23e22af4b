package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/subscription"
)

// TestSubscribersWithoutTLS: who came by the port without TLS is named, by its pod
// or else by node and address.
func TestSubscribersWithoutTLS(t *testing.T) {
	pod := &subscription.Pod{Uid: "u", Namespace: "falco", Name: "old"}
	var out strings.Builder
	if err := writeSubscribers(&out, []installation.Replica{{Pod: "c-1", Told: &subscription.ListResponse{Subscribers: []*subscription.Subscriber{
		{Node: "a", Pod: pod, By: "address", Plaintext: true},
		{Node: "b", Address: "192.0.2.1", By: "nodeAddress", Plaintext: true},
		{Node: "c", Address: "192.0.2.2", By: "nodeAddress"},
	}}}}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`a +falco/old +address, no TLS `, `b +192\.0\.2\.1 +nodeAddress, no TLS `, `c +192\.0\.2\.2 +nodeAddress  `} {
		if !regexp.MustCompile(line).MatchString(out.String()) {
			t.Errorf("no line %q in:\n%s", line, out.String())
		}
	}
}
