package integration_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	sigsyaml "sigs.k8s.io/yaml"
)

// promServer is a real Prometheus, of the Debian package.
type promServer struct{ address string }

// target is something to scrape, and the labels that Kubernetes' discovery would
// give it.
type target struct {
	address string
	labels  map[string]string
}

// startPrometheus starts one on loopback that ends with the test, and scrapes
// each second.
func startPrometheus(t *testing.T, rules string, targets ...target) *promServer {
	t.Helper()
	var scrapes []any
	for i, target := range targets {
		scrapes = append(scrapes, map[string]any{
			"job_name":       fmt.Sprint(i),
			"static_configs": []any{map[string]any{"targets": []string{target.address}, "labels": target.labels}},
		})
	}
	dir, p := t.TempDir(), &promServer{freeAddress(t)}
	config, err := sigsyaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"scrape_configs": scrapes,
		"rule_files":     []string{filepath.Join(dir, "rules.yaml")},
	})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "prometheus.yaml"), string(config))
	writeFile(t, filepath.Join(dir, "rules.yaml"), rules)
	logs := &log{}
	cmd := exec.Command("prometheus", "--config.file", filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", p.address)
	cmd.Stdout, cmd.Stderr = logs, logs
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make prometheus installs it)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus logged:\n%s", logs)
		}
	})
	eventually(t, func() error {
		if code, body := fetch(t, "http://"+p.address+"/-/ready"); code != http.StatusOK {
			return fmt.Errorf("/-/ready answers %d: %s", code, body)
		}
		return nil
	})
	return p
}

// get asks the API and decodes its data.
func (p *promServer) get(t *testing.T, path string, data any) error {
	t.Helper()
	code, body := fetch(t, "http://"+p.address+"/api/v1/"+path)
	if code != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", path, code, body)
	}
	return json.NewDecoder(strings.NewReader(body)).Decode(&struct{ Data any }{data})
}

// figures are what a query returns now, but for those that are not numbers.
func (p *promServer) figures(t *testing.T, query string) ([]float64, error) {
	t.Helper()
	var data struct {
		ResultType string
		Result     []struct {
			Value [2]any
		}
	}
	if err := p.get(t, "query?query="+url.QueryEscape(query), &data); err != nil {
		return nil, err
	}
	var figures []float64
	for _, r := range data.Result {
		text, _ := r.Value[1].(string)
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		if !math.IsNaN(f) {
			figures = append(figures, f)
		}
	}
	return figures, nil
}

// ruleHealth is what Prometheus makes of an alert.
type ruleHealth struct {
	Name, Health, LastError, State string
}

// rules are those that were evaluated.
func (p *promServer) rules(t *testing.T) ([]ruleHealth, error) {
	t.Helper()
	var data struct {
		Groups []struct{ Rules []ruleHealth }
	}
	if err := p.get(t, "rules", &data); err != nil {
		return nil, err
	}
	var all []ruleHealth
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}
