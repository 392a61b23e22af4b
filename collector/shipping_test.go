package collector_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector"
	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/collector/inventory/receiver"
)

// shipping is a configuration that only ships.
const shipping = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
clusterID: test
health: {address: %q}
metrics: {address: %q}
inventory:
  enabled: true
  endpoint: %s
  resources: [pods, services, widgets.example.com]
  state: {namespace: metawire, lease: l, report: r}
`

// TestShipsAlone: without a stream there is no port of it, and nothing to wait
// for.
func TestShipsAlone(t *testing.T) {
	r := &running{health: freeAddress(t), metrics: freeAddress(t)}
	cfg, err := config.Decode(fmt.Appendf(nil, shipping, r.health, r.metrics, "https://inventory.example"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := collector.New(cfg, &rest.Config{Host: "http://" + freeAddress(t)}, slog.New(slog.DiscardHandler), options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r.answers(t, "readyz", http.StatusOK, "ok")
	if code, body := get(t, "http://"+r.metrics+"/metrics"); code != http.StatusOK || !strings.Contains(body, "metawire_inventory_runs_total") || strings.Contains(body, "metawire_stream") {
		t.Errorf("the metrics are not those of a collector that only ships: %s", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestMissingCredential: a key that is missing in the mounted Secret is refused
// at the start, by the field that names it.
func TestMissingCredential(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "token")
	text := fmt.Sprintf(shipping, ":0", ":0", "https://inventory.example") + "  credentials: {mode: bearer, tokenFile: " + missing + "}\n"
	cfg, err := config.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	api := &rest.Config{Host: "http://" + freeAddress(t)}
	_, err = collector.New(cfg, api, slog.New(slog.DiscardHandler), options())
	if err == nil || !strings.Contains(err.Error(), "inventory.credentials.tokenFile: ") || !strings.Contains(err.Error(), `the key "token"`) {
		t.Errorf("New: %v", err)
	}
	if _, err = collector.InventoryOnce(t.Context(), cfg, api, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "tokenFile") {
		t.Errorf("InventoryOnce: %v", err)
	}
}

// TestInventoryOnce: one run against an API server that serves two of three
// types and a custom resource, and lets one of them be listed. What is
// configured and forbidden keeps the run open; what is neither does not.
func TestInventoryOnce(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(fewTypes))
	defer api.Close()
	endpoint := receiver.New(receiver.Options{})
	sink := httptest.NewServer(endpoint)
	defer sink.Close()
	once := func(resources string, more ...string) *inventory.Report {
		cfg, err := config.DecodeInventory(fmt.Appendf(nil, `{apiVersion: metawire.dev/v1alpha1, kind: CollectorConfig, clusterID: test,
			inventory: {endpoint: %q, contract: runs, resources: [%s] %s}}`, sink.URL, resources, strings.Join(more, "")), os.Getenv)
		if err != nil {
			t.Fatal(err)
		}
		report, err := collector.InventoryOnce(t.Context(), cfg, &rest.Config{Host: api.URL}, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	if r := once("pods, widgets.example.com"); r.Result != inventory.Complete || r.Types[0].Outcome != inventory.OK || r.Types[1].Outcome != inventory.Absent {
		t.Errorf("want complete without what is not served, got %s", inventory.Summary(r))
	}
	if kept := endpoint.Kept(); len(kept.Objects) != 1 || strings.Contains(string(kept.Objects["1"]), "hunter2") {
		t.Errorf("arrived: %s", kept.Objects)
	}
	for _, run := range endpoint.Kept().Runs {
		if !run.Closed || run.Kubernetes != "v1.35.1" {
			t.Errorf("the endpoint is told %+v", run)
		}
	}
	if r := once("pods, services"); r.Result != inventory.Partial || r.Types[1].Outcome != inventory.Forbidden {
		t.Errorf("want partial without what is forbidden, got %s", inventory.Summary(r))
	}
	const groups = ", customResources: true, customResourceGroups: [a.example"
	r := once("pods", groups+"]")
	if r.Result != inventory.Complete || len(r.Types) != 1 || !strings.HasSuffix(strings.Join(r.Notes, ""), "are not collected: gadgets.b.example") {
		t.Errorf("want complete without what is not configured, got %s, %q", inventory.Summary(r), r.Notes)
	}
	for _, all := range []string{groups + ", b.example]", ", customResources: true"} {
		r := once("pods", all)
		if r.Result != inventory.Partial || r.Types[1].Name != "gadgets.b.example" || r.Types[1].Outcome != inventory.Forbidden || endpoint.Kept().Runs[r.Run].Closed {
			t.Errorf("want a run that is left open without a custom resource that is forbidden, got %s", inventory.Summary(r))
		}
	}
}

// fewTypes is an API server.
func fewTypes(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch q.URL.Path {
	case "/api":
		_, _ = io.WriteString(w, `{"kind":"APIVersions","versions":["v1"]}`)
	case "/version":
		_, _ = io.WriteString(w, `{"major":"1","minor":"35","gitVersion":"v1.35.1"}`)
	case "/apis":
		_, _ = io.WriteString(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[
			{"name":"b.example","versions":[{"groupVersion":"b.example/v1","version":"v1"}],"preferredVersion":{"groupVersion":"b.example/v1","version":"v1"}}]}`)
	case "/apis/b.example/v1":
		_, _ = io.WriteString(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"b.example/v1","resources":[
			{"name":"gadgets","kind":"Gadget","namespaced":true,"verbs":["list"]}]}`)
	case "/apis/apiextensions.k8s.io/v1/customresourcedefinitions":
		_, _ = io.WriteString(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{},"items":[
			{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"gadgets.b.example"}}]}`)
	case "/api/v1":
		_, _ = io.WriteString(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[
			{"name":"pods","kind":"Pod","namespaced":true,"verbs":["list"]},{"name":"services","kind":"Service","namespaced":true,"verbs":["list"]}]}`)
	case "/api/v1/namespaces":
		_, _ = io.WriteString(w, `{"kind":"NamespaceList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"kube-system","uid":"k"}}]}`)
	case "/api/v1/pods":
		_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
			{"metadata":{"name":"a","namespace":"b","uid":"1"},"spec":{"containers":[{"name":"c","env":[{"name":"D","value":"hunter2"}]}]}}]}`)
	default:
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"not allowed"}`)
	}
}
