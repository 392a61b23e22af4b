package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

// inventoryConfig writes one of a sender to the endpoint, with a token.
func inventoryConfig(t *testing.T, endpoint, token, more string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "collector.yaml")
	text := fmt.Sprintf(`apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
clusterID: c
inventory:
  enabled: true
  endpoint: %s
  resources: [pods]
  redaction: {mode: none}
  credentials: {mode: bearer, tokenFile: "%s/token"}
%s`, endpoint, dir, more)
	for name, content := range map[string]string{file: text, filepath.Join(dir, "token"): token} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// TestInventoryReport: what the last run was.
func TestInventoryReport(t *testing.T) {
	s := httptest.NewServer(receiver.New(receiver.Options{}))
	t.Cleanup(s.Close)
	config := inventoryConfig(t, s.URL, "a-token", "")
	const ended = `"ended":"2026-01-02T03:04:05Z"`
	for name, c := range map[string]struct{ report, says, fails string }{
		"none yet":     {"", "no run of the inventory has ended yet; to make one now: metawire inventory trigger\n", ""},
		"complete":     {`{"result":"complete",` + ended + `,"types":[{"name":"pods","outcome":"ok","listed":3}],"more":1}`, "complete, 3 objects of 1 types", ""},
		"partial":      {`{"result":"partial",` + ended + `,"types":[{"name":"pods","outcome":"forbidden","error":"no"}]}`, "\npods: forbidden: no\n", "is partial, not complete"},
		"failed":       {`{"result":"failed",` + ended + `,"error":"answered 500"}`, "\nanswered 500\n", "is failed, not complete"},
		"skipped":      {`{"result":"skipped",` + ended + `,"error":"suspended"}`, "\nsuspended\n", "is skipped, not complete"},
		"put off":      {`{"result":"skipped","tooEarly":true,` + ended + `,"error":"too early"}`, "the endpoint put it off", ""},
		"not a report": {"{", "", "report.json: not a report of a run"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.json")
			if c.report != "" {
				if err := os.WriteFile(file, []byte(c.report), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			probed(t, config, file, c.says, c.fails)
		})
	}
	if err := run(t.Context(), []string{"inventory", "--config", config}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "--report are required") {
		t.Errorf("without a report: %v", err)
	}
}

// TestInventoryEndpoint: the endpoint takes a page, or what keeps it from that is
// told.
func TestInventoryEndpoint(t *testing.T) {
	answers := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "so it is", status) })
	}
	kept := receiver.New(receiver.Options{Token: "a-token"})
	for name, c := range map[string]struct {
		endpoint    http.Handler
		token, more string
		says, fails string
	}{
		"taken":             {endpoint: kept, token: "a-token", says: "took a page without objects"},
		"taken, plain":      {endpoint: kept, token: "a-token", more: "  compression: none\n", says: "took a page without objects"},
		"wrong token":       {endpoint: kept, token: "other", fails: "send the endpoint a page without objects: POST"},
		"no such path":      {endpoint: answers(http.StatusNotFound), token: "a-token", fails: "answered 404"},
		"no page like that": {endpoint: answers(http.StatusBadRequest), token: "a-token", says: "a page without objects it does not"},
		"200 is not 204":    {endpoint: answers(http.StatusOK), token: "a-token", fails: "only 204 is success"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(c.endpoint)
			t.Cleanup(s.Close)
			probed(t, inventoryConfig(t, s.URL, c.token, c.more), filepath.Join(t.TempDir(), "none.json"), c.says, c.fails)
		})
	}
	if k := kept.Kept(); len(k.Objects) > 0 {
		t.Errorf("objects arrived: %v", k.Objects)
	}
	t.Run("nobody listens", func(t *testing.T) {
		s := httptest.NewServer(kept)
		s.Close()
		probed(t, inventoryConfig(t, s.URL, "a-token", ""), filepath.Join(t.TempDir(), "none.json"), "", "connection refused")
	})
	t.Run("no configuration", func(t *testing.T) {
		probed(t, filepath.Join(t.TempDir(), "none.yaml"), filepath.Join(t.TempDir(), "none.json"), "no run", "read configuration")
	})
}

// TestInventoryLogin: of the contract runs it logs in, and opens no run.
func TestInventoryLogin(t *testing.T) {
	for name, status := range map[string]int{"taken": http.StatusOK, "refused": http.StatusUnauthorized} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/account/access_keys/login" {
					t.Errorf("asked for %s", r.URL)
				}
				w.WriteHeader(status)
				fmt.Fprint(w, `{"access_token": "a", "expires_in": 60, "token_type": "Bearer"}`)
			}))
			t.Cleanup(s.Close)
			config := inventoryConfig(t, s.URL, "a-token", "  contract: runs\n")
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Dir(config)
			keys := strings.Replace(string(text), "mode: bearer, tokenFile: \""+dir+"/token\"", "mode: accessKeys, accessKeyFile: \""+dir+"/token\", secretKeyFile: \""+dir+"/token\"", 1)
			if err := os.WriteFile(config, []byte(keys), 0o600); err != nil {
				t.Fatal(err)
			}
			says, fails := "takes the credentials", ""
			if status != http.StatusOK {
				says, fails = "", "log in at the endpoint"
			}
			probed(t, config, filepath.Join(t.TempDir(), "none.json"), says, fails)
		})
	}
}

// probed runs the probe, which passes unless it fails with these words.
func probed(t *testing.T, config, report, says, fails string) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), []string{"inventory", "--config", config, "--report", report}, &out)
	if !strings.Contains(out.String(), says) || strings.HasSuffix(out.String(), "PASS\n") != (fails == "") {
		t.Errorf("it says %q", out.String())
	}
	if (err == nil) != (fails == "") || err != nil && !strings.Contains(err.Error(), fails) {
		t.Errorf("it ends with %v", err)
	}
}
