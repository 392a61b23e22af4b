package collector

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/collector/inventory/receiver"
)

var quiet = slog.New(slog.DiscardHandler)

// shipped decodes an inventory's configuration, with words replaced by others.
func shipped(t *testing.T, lines string, replace ...string) *config.Config {
	t.Helper()
	lines = strings.NewReplacer(replace...).Replace(lines)
	cfg, err := config.DecodeInventory([]byte(`{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, clusterID: a, inventory: {resources: [pods], `+lines+"}}"),
		func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestContracts: an object arrives as each configuration says that it is sent.
func TestContracts(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "hunter2", "access": "user", "secret": "hunter3"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		lines string
		takes receiver.Options
	}{
		"plain": {"compression: none", receiver.Options{}},
		"token": {"credentials: {mode: bearer, tokenFile: DIR/token}, spool: {directory: DIR/spool}", receiver.Options{Token: "hunter2"}},
		"login": {
			"credentials: {mode: accessKeys, accessKeyFile: DIR/access, secretKeyFile: DIR/secret}, loginEndpoint: URL",
			receiver.Options{AccessKey: "user", SecretKey: "hunter3"},
		},
		"runs": {"contract: runs, overrideUniqueClusterId: true", receiver.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := receiver.New(tc.takes)
			server := httptest.NewServer(endpoint)
			defer server.Close()
			cfg := shipped(t, "endpoint: URL, "+tc.lines, "URL", server.URL, "DIR", dir)
			c, err := newContract(&cfg.Inventory, inventory.RunsOptions{}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Begin(t.Context(), inventory.Run{ID: strings.Repeat("a", 24), ClusterID: "a", ClusterUID: "u"}); err != nil {
				t.Fatal(err)
			}
			o := inventory.Object{JSON: []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","uid":"1"}}`)}
			o.Kind, o.UID = "Pod", "1"
			if err := c.Add(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			r := &inventory.Report{Run: strings.Repeat("a", 24), Result: inventory.Complete, Version: "dev", Started: time.Now(), Ended: time.Now()}
			if err := c.End(t.Context(), r); err != nil || r.Result != inventory.Complete {
				t.Fatalf("%s, %v", r.Result, err)
			}
			kept := endpoint.Kept()
			if len(kept.Objects) != 1 || kept.Refused != 0 || (kept.Logins > 0) != (name == "login") {
				t.Errorf("arrived: %+v", kept)
			}
		})
	}
}

// TestContractRefuses: what cannot be used is told by its field.
func TestContractRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := shipped(t, "endpoint: https://x, spool: {directory: FILE/spool}", "FILE", file)
	if _, err := newContract(&cfg.Inventory, inventory.RunsOptions{}, quiet); err == nil || !strings.Contains(err.Error(), "inventory.spool.directory: ") {
		t.Errorf("got %v", err)
	}
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
