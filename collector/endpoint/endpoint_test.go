package endpoint

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

// shipped decodes an inventory's configuration, with words replaced by others.
func shipped(t *testing.T, lines string, replace ...string) *config.Inventory {
	t.Helper()
	lines = strings.NewReplacer(replace...).Replace(lines)
	cfg, err := config.DecodeInventory([]byte(`{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, clusterID: a, inventory: {resources: [pods], `+lines+"}}"),
		func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	return &cfg.Inventory
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
			service := receiver.New(tc.takes)
			server := httptest.NewServer(service)
			defer server.Close()
			cfg := shipped(t, "endpoint: URL, "+tc.lines, "URL", server.URL, "DIR", dir)
			said, err := Try(t.Context(), cfg)
			if err != nil || !strings.Contains(said, "took a page without objects") && !strings.Contains(said, "takes the credentials") {
				t.Errorf("tried: %s, %v", said, err)
			}
			if kept := service.Kept(); len(kept.Objects) > 0 || name == "runs" && len(kept.Runs) > 0 {
				t.Errorf("to try brought %+v", kept)
			}
			c, err := NewContract(cfg, inventory.RunsOptions{}, slog.New(slog.DiscardHandler))
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
			kept := service.Kept()
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
	if _, err := NewContract(cfg, inventory.RunsOptions{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "inventory.spool.directory: ") {
		t.Errorf("got %v", err)
	}
}

// TestTryRefused: what the endpoint does not take is told.
func TestTryRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("wrong-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[string]string{
		"credentials: {mode: bearer, tokenFile: FILE}":                                              "send the endpoint a page without objects: ",
		"contract: runs, credentials: {mode: accessKeys, accessKeyFile: FILE, secretKeyFile: FILE}": "log in at the endpoint: ",
	} {
		server := httptest.NewServer(receiver.New(receiver.Options{AccessKey: "user", SecretKey: "hunter3"}))
		said, err := Try(t.Context(), shipped(t, "endpoint: URL, "+lines, "URL", server.URL, "FILE", file))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "wrong-token") {
			t.Errorf("%s: %s, %v", lines, said, err)
		}
		server.Close()
	}
}
