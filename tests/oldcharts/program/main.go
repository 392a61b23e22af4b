// Command program stands in for what the old charts run: by the name that it is
// called by it is meta-collector, k8s-collector or boarder. The first is made of
// our own collector, without TLS and without authorization, as the predecessor was;
// it ends at once, as that one did.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector"
	"github.com/metawire/metawire/collector/config"
)

func main() {
	do := map[string]func(context.Context) error{"meta-collector": stream, "k8s-collector": send, "boarder": board}[filepath.Base(os.Args[0])]
	if do == nil {
		fmt.Fprintln(os.Stderr, "is called by another name:", os.Args[0])
		os.Exit(1)
	}
	if err := do(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// stream serves any node's metadata to anybody. SIGTERM ends the process as it
// does by default: connections break.
func stream(ctx context.Context) error {
	cfg, _, err := config.Load("/etc/meta-collector.yaml")
	if err != nil {
		return err
	}
	api, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	c, err := collector.New(cfg, api, slog.New(slog.NewTextHandler(os.Stderr, nil)), collector.Options{})
	if err != nil {
		return err
	}
	go tellSubscribers(cfg.Metrics.Address)
	return c.Run(ctx)
}

// tellSubscribers serves what our collector's metrics say of its subscribers under
// the predecessor's name.
func tellSubscribers(ours string) {
	page := func(w http.ResponseWriter, r *http.Request) {
		text, err := call(r.Context(), http.MethodGet, "http://"+ours+"/metrics", "", nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		found := regexp.MustCompile(`(?m)^metawire_stream_subscribers (\S+)$`).FindSubmatch(text)
		if found == nil {
			http.Error(w, "metawire_stream_subscribers is gone", http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "# TYPE meta_collector_server_subscribers gauge\nmeta_collector_server_subscribers %s\n", found[1])
	}
	server := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(page), ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
}

// send makes a run without objects, by the contract runs. A ConfigMap's key
// stand-in.duration makes it longer.
func send(ctx context.Context) error {
	login, err := call(ctx, http.MethodPost, at("loginEndpoint")+"/account/access_keys/login", "", map[string]string{
		"accessKey": os.Getenv("INFRALIGHT_ACCESS_KEY"), "secretKey": os.Getenv("INFRALIGHT_SECRET_KEY"),
	})
	if err != nil {
		return err
	}
	var token struct {
		Value string `json:"access_token"`
	}
	if err := json.Unmarshal(login, &token); err != nil {
		return err
	}
	run := fmt.Sprintf("%024x", time.Now().UnixNano())
	base := at("endpoint") + "/integrations/k8s/" + os.Getenv("CLUSTER_ID") + "/fetching"
	opened, err := call(ctx, http.MethodGet, base+"?getIntegrationId=true&clusterUniqueId=old&fetchingId="+run, token.Value, nil)
	if err != nil {
		return err
	}
	integration, _, _ := strings.Cut(strings.Trim(string(opened), "\" \n"), ",")
	if d, err := time.ParseDuration(setting("stand-in.duration")); err == nil {
		<-time.After(d)
	}
	helm := map[string]any{"fetchingId": run, "helmReleases": []any{}, "k8sTypes": []any{}}
	if _, err := call(ctx, http.MethodPost, base+"/helm?integrationId="+integration, token.Value, helm); err != nil {
		return err
	}
	_, err = call(ctx, http.MethodPatch, base+"?integrationId="+integration, token.Value, map[string]string{"fetchingId": run, "clusterId": os.Getenv("CLUSTER_ID")})
	return err
}

// board signs the cluster on or off at the service.
func board(ctx context.Context) error {
	_, err := call(ctx, http.MethodPost, os.Getenv("APP_API_URL")+"/"+os.Args[1], "", map[string]string{"clusterId": os.Getenv("CLUSTER_ID")})
	return err
}

func setting(key string) string {
	data, _ := os.ReadFile("/etc/config/" + key) // none is empty
	return strings.TrimSpace(string(data))
}

func at(key string) string { return cmp.Or(setting(key), setting("endpoint")) }

func call(ctx context.Context, method, url, token string, body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil || answer.StatusCode >= http.StatusMultipleChoices {
		return nil, errors.Join(fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, said), err)
	}
	return said, nil
}
