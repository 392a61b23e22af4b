package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metawire/metawire/internal/version"
)

// asCollector makes the test binary be the collector, so that what is tested is
// the process with its exit code.
const asCollector = "METAWIRE_TEST_AS_COLLECTOR"

func TestMain(m *testing.M) {
	if os.Getenv(asCollector) != "" {
		main()
		return
	}
	m.Run()
}

const configuration = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: "127.0.0.1:0"}
metrics: {address: "127.0.0.1:0"}
stream:
  enabled: true
  address: "127.0.0.1:0"
  tls: {mode: disabled}
  authorization: disabled
`

const kubeconfig = `apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: test, user: {}}]
`

// execute runs the collector to its end.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCollector+"=1", "KUBERNETES_SERVICE_HOST=", "KUBERNETES_SERVICE_PORT=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestRefuses: what is wrong ends the process with 1 and is named.
func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good, api := file("good.yaml", configuration), file("kubeconfig", kubeconfig)
	replaced := func(name, old, new string) string {
		return file(name, strings.Replace(configuration, old, new, 1))
	}
	unknownKey := file("unknown.yaml", configuration+"  pace: 1\n")
	badValue := replaced("value.yaml", "authorization: disabled", "authorization: maybe")
	noFiles := replaced("tls.yaml", "{mode: disabled}", fmt.Sprintf("{mode: files, certFile: %s/no.crt, keyFile: %s/no.key}", dir, dir))
	port := replaced("port.yaml", `stream:
  enabled: true
  address: "127.0.0.1:0"`, fmt.Sprintf("stream:\n  enabled: true\n  address: %q", taken.Addr()))
	ships := file("ships.yaml", `{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, clusterID: a,
  inventory: {endpoint: "http://127.0.0.1:1", resources: [pods]}}`)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no flags":                {nil, []string{"config", "required"}},
		"unknown flag":            {[]string{"--confg", good}, []string{"--confg"}},
		"argument":                {[]string{"--config", good, "more"}, []string{"more"}},
		"bad log level":           {[]string{"--config", good, "--log-level", "loud"}, []string{"--log-level", "loud"}},
		"bad log format":          {[]string{"--config", good, "--log-format", "xml"}, []string{"--log-format", "xml", "json or text"}},
		"no configuration file":   {[]string{"--config", filepath.Join(dir, "none.yaml")}, []string{filepath.Join(dir, "none.yaml"), "no such file"}},
		"unknown key":             {[]string{"--config", unknownKey, "--kubeconfig", api}, []string{unknownKey, "line 10", "pace"}},
		"value not allowed":       {[]string{"--config", badValue, "--kubeconfig", api}, []string{badValue, "stream.authorization", "maybe", "disabled"}},
		"no certificate":          {[]string{"--config", noFiles, "--kubeconfig", api}, []string{"stream.tls", "no.crt", "no such file"}},
		"no kubeconfig":           {[]string{"--config", good, "--kubeconfig", filepath.Join(dir, "none")}, []string{"--kubeconfig", filepath.Join(dir, "none"), "no such file"}},
		"neither pod nor file":    {[]string{"--config", good}, []string{"not in a pod", "--kubeconfig"}},
		"kubeconfig that is none": {[]string{"--config", good, "--kubeconfig", file("text", "hello")}, []string{"--kubeconfig", filepath.Join(dir, "text")}},
		"a run, no endpoint":      {[]string{"--inventory-once", "--config", good, "--kubeconfig", api}, []string{good, "inventory.endpoint", "inventory.resources", "clusterID"}},
		"a run that is not sent":  {[]string{"--inventory-once", "--config", ships, "--kubeconfig", api}, []string{"inventory run ", "failed: ", "127.0.0.1:1"}},
		"taken port":              {[]string{"--config", port, "--kubeconfig", api}, []string{"stream.address", taken.Addr().String(), "in use"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, c.args...)
			if code != 1 {
				t.Errorf("ended with %d, want 1", code)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("does not say %q: %s", w, stderr)
				}
			}
			if stdout != "" || strings.Contains(stderr, "goroutine") {
				t.Errorf("printed more than an error: %s%s", stdout, stderr)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for flag, want := range map[string][]string{
		"--help":    {"--config FILE", "--kubeconfig FILE", "--log-level", "--log-format", "--inventory-once", "collector --config", "status 0"},
		"--version": {version.String()},
	} {
		code, stdout, stderr := execute(t, flag)
		if code != 0 || stderr != "" {
			t.Errorf("%s: ended with %d and %q", flag, code, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stdout, w) {
				t.Errorf("%s does not say %q: %s", flag, w, stdout)
			}
		}
	}
}

// TestFlags: what is parsed is what is run with.
func TestFlags(t *testing.T) {
	var logs bytes.Buffer
	var got flags
	cmd := command(&logs, func(_ context.Context, f flags) error {
		got = f
		f.Log.Debug("hello")
		return nil
	})
	cmd.SetArgs([]string{"--config", "c", "--kubeconfig", "k", "--log-level", "debug", "--log-format", "text"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got.Config != "c" || got.Kubeconfig != "k" {
		t.Errorf("parsed %+v", got)
	}
	if !strings.Contains(logs.String(), "level=DEBUG msg=hello") {
		t.Errorf("logged %q", logs.String())
	}
}
