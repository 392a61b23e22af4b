package collector

import (
	"strings"
	"testing"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
)

// shipped decodes an inventory's configuration.
func shipped(t *testing.T, lines string) *config.Config {
	t.Helper()
	cfg, err := config.DecodeInventory([]byte(`{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, clusterID: a, inventory: {resources: [pods], `+lines+"}}"),
		func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestBasis: with another one everything is sent again.
func TestBasis(t *testing.T) {
	was := basis(shipped(t, "endpoint: https://x"), []byte("key"))
	if was != basis(shipped(t, "endpoint: https://x, schedule: '@daily', pageBytes: 100"), []byte("key")) {
		t.Error("another schedule sends everything")
	}
	for name, is := range map[string]string{
		"endpoint":  basis(shipped(t, "endpoint: https://y"), []byte("key")),
		"redaction": basis(shipped(t, "endpoint: https://x, redaction: {mode: none}"), []byte("key")),
		"limit":     basis(shipped(t, "endpoint: https://x, maxObjectBytes: 2Mi"), []byte("key")),
		"key":       basis(shipped(t, "endpoint: https://x"), []byte("another")),
	} {
		if is == was {
			t.Errorf("%s: what was sent is taken for what would be", name)
		}
	}
}

// TestIndexIsNotSent: the index, which every run changes, is none of what it sends.
func TestIndexIsNotSent(t *testing.T) {
	b := butItself{always{}, inventory.State{Namespace: "metawire", Index: "i"}}
	maps := inventory.Type{Name: "configmaps"}
	for name, want := range map[string]bool{"metawire/i-0": false, "metawire/i-31": false, "metawire/i": true, "metawire/other": true, "shop/i-0": true} {
		namespace, name, _ := strings.Cut(name, "/")
		if b.Changed(maps, inventory.Identity{Namespace: namespace, Name: name}) != want {
			t.Errorf("%s/%s: want %t", namespace, name, want)
		}
	}
	if !b.Changed(inventory.Type{Name: "secrets"}, inventory.Identity{Namespace: "metawire", Name: "i-0"}) {
		t.Error("a Secret is taken for the index")
	}
}

// always is an index to which everything is new.
type always struct{ inventory.Index }

func (always) Changed(inventory.Type, inventory.Identity) bool { return true }
