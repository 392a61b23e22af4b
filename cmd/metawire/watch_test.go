package main

import (
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/collector/metadata"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/internal/subscriber/subscribertest"
)

func TestWatchLines(t *testing.T) {
	hub, addr := collect(t)
	fill(hub)
	c := start(t, "watch", "--node", "worker-1", "--addr", addr)
	c.stdout.waitFor(t, "agent-x1\n")
	hub.Apply(pod("p1", "agent-x1", "10.0.0.2"))
	c.stdout.waitFor(t, "Update Pod")
	hub.Delete(relation.Pod, "p1")
	c.stdout.waitFor(t, "Delete Namespace shop\n")
	c.stdout.waitFor(t, "Delete Pod shop/agent-x1\n")
	if err := c.interrupt(); err != nil {
		t.Errorf("interrupted: %v, want no error", err)
	}
	want := regexp.MustCompile(`(?s)^(\d\d:\d\d:\d\d\.\d{3} Create (Namespace shop|DaemonSet shop/agent)\n){2}\S+ Create Pod shop/agent-x1\n.*` +
		`\S+ Update Pod shop/agent-x1\n`)
	if got := c.stdout.String(); !want.MatchString(got) {
		t.Errorf("want %s, got\n%s", want, got)
	}
	if got := c.stderr.String(); !strings.HasPrefix(got, "connected to "+addr+" in ") {
		t.Errorf("stderr %q, want how long the connection took", got)
	}
}

func TestWatchJSON(t *testing.T) {
	hub, addr := collect(t)
	fill(hub)
	c := start(t, "watch", "--node", "worker-1", "--addr", addr, "--kinds", "pod", "-o", "json")
	c.stdout.waitFor(t, "Create")
	hub.Delete(relation.Pod, "p1")
	c.stdout.waitFor(t, "Delete")
	if err := c.interrupt(); err != nil {
		t.Errorf("interrupted: %v, want no error", err)
	}
	var got []map[string]any
	for line := range strings.Lines(c.stdout.String()) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		arrived, _ := event["time"].(string)
		if _, err := time.Parse(time.RFC3339Nano, arrived); err != nil {
			t.Errorf("time of %s: %v", line, err)
		}
		delete(event, "time")
		got = append(got, event)
	}
	want := []map[string]any{{
		"reason": "Create", "uid": "p1", "kind": "Pod",
		"meta":   map[string]any{"name": "agent-x1", "namespace": "shop", "uid": "p1"},
		"status": map[string]any{"podIP": "10.0.0.1"},
		"refs":   map[string]any{"Namespace": []any{"n1"}, "DaemonSet": []any{"d1"}, "Service": []any{}},
	}, {
		"reason": "Delete", "uid": "p1", "kind": "Pod",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestWatchLeavesOutWhatItNeverSaw: a stream begins with deletions for subscribers
// that come back; people get no line for what they were never shown, programs do.
func TestWatchLeavesOutWhatItNeverSaw(t *testing.T) {
	gone := &metadata.Event{Reason: "Delete", Uid: "p0", Kind: "Pod"}
	shop := &metadata.Event{Reason: "Create", Uid: "n1", Kind: "Namespace", Meta: new(`{"name":"shop","uid":"n1"}`)}
	addr := subscribertest.Serve(t, subscribertest.Hold(gone, shop, &metadata.Event{Reason: "Delete", Uid: "n1", Kind: "Namespace"}))
	for format, shown := range map[string]bool{"table": false, "json": true} {
		t.Run(format, func(t *testing.T) {
			c := start(t, "watch", "--node", "worker-1", "--addr", addr, "-o", format)
			c.stdout.waitUntil(t, "deletion of what was shown", func(s string) bool {
				return strings.Contains(s, "Delete Namespace shop\n") || strings.Count(s, `"Delete"`) == 2
			})
			if err := c.interrupt(); err != nil {
				t.Errorf("interrupted: %v, want no error", err)
			}
			if strings.Contains(c.stdout.String(), "p0") != shown {
				t.Errorf("the deletion of what was never seen is shown: %v, want %v\n%s", !shown, shown, c.stdout)
			}
		})
	}
}

func TestWatchComesBackAfterADrain(t *testing.T) {
	create := &metadata.Event{Reason: "Create", Uid: "n1", Kind: "Namespace", Meta: new(`{"name":"shop","uid":"n1"}`)}
	addr := subscribertest.Serve(t, func(n int, s *metadata.Selector, out grpc.ServerStreamingServer[metadata.Event]) error {
		if n == 0 {
			if err := out.Send(create); err != nil {
				return err
			}
			return status.Error(codes.Aborted, "draining")
		}
		return subscribertest.Hold(&metadata.Event{Reason: "Delete", Uid: "n1", Kind: "Namespace"})(n, s, out)
	})
	c := start(t, "watch", "--node", "worker-1", "--addr", addr)
	c.stdout.waitFor(t, "Delete Namespace shop\n") // by name: it was kept
	if err := c.interrupt(); err != nil {
		t.Errorf("interrupted: %v, want no error", err)
	}
	if want := "stream ended: Aborted: \"draining\"; again in 1s\n"; !strings.Contains(c.stderr.String(), want) {
		t.Errorf("stderr %q, want %q in it", c.stderr, want)
	}
}

func TestWatchEndsWithTheReason(t *testing.T) {
	_, open := collect(t)
	withTLS, ca := subscribertest.TLS(t, "collector.test")
	secure := subscribertest.Serve(t, subscribertest.Hold(), withTLS)
	refusing := subscribertest.Serve(t, func(int, *metadata.Selector, grpc.ServerStreamingServer[metadata.Event]) error {
		return status.Error(codes.PermissionDenied, "not your node")
	})
	broken := subscribertest.Serve(t, subscribertest.Hold(&metadata.Event{Reason: "Create", Uid: "p1", Kind: "Pod", Meta: new("{")}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"nobody listens":      {[]string{"--addr", closed}, []string{closed, "connection refused", "metawire check"}},
		"plaintext to TLS":    {[]string{"--addr", secure}, []string{secure, "--tls-ca FILE"}},
		"TLS to plaintext":    {[]string{"--addr", open, "--tls-ca", ca}, []string{open, "leave --tls-ca out"}},
		"wrong name":          {[]string{"--addr", secure, "--tls-ca", ca}, []string{"certificate is not accepted", "--tls-server-name"}},
		"refused":             {[]string{"--addr", refusing}, []string{`node "worker-1": refused by the collector: PermissionDenied: "not your node"`}},
		"broken event":        {[]string{"--addr", broken}, []string{"meta of Pod p1"}},
		"broken event, JSON":  {[]string{"--addr", broken, "-o", "json"}, []string{"event of Pod p1"}},
		"no CA file":          {[]string{"--addr", closed, "--tls-ca", ca + ".not"}, []string{ca + ".not"}},
		"no kubeconfig":       {[]string{"--kubeconfig", ca + ".not"}, []string{ca + ".not", "--kubeconfig FILE"}},
		"no token":            {[]string{"--addr", closed, "--tls-ca", ca, "--token-file", ca + ".not"}, []string{"read the token", ca + ".not"}},
		"unknown kind":        {[]string{"--kinds", "pod,Foo"}, []string{`unknown kind "Foo"`, "Namespace", "CronJob"}},
		"no kind":             {[]string{"--kinds", ""}, []string{"--kinds names no kind"}},
		"no node":             {[]string{"--node", ""}, []string{"--node is required"}},
		"name without TLS":    {[]string{"--addr", closed, "--tls-server-name", "x"}, []string{"needs --tls-ca"}},
		"unknown output":      {[]string{"-o", "yaml"}, []string{"allowed are table, json", "metawire watch --help"}},
		"unknown flag":        {[]string{"--nope"}, []string{"--nope", "metawire watch --help"}},
		"an argument as well": {[]string{"worker-2"}, []string{"worker-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, append([]string{"watch", "--node", "worker-1"}, tc.args...)...)
			err := <-c.done
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
			if c.stdout.String() != "" {
				t.Errorf("stdout %q", c.stdout)
			}
		})
	}
}

func TestKindsAreWrittenAsOneLikes(t *testing.T) {
	got, err := parseKinds([]string{"pod", "REPLICASET", "CronJob"})
	if diff := cmp.Diff([]string{"Pod", "ReplicaSet", "CronJob"}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if _, err := parseKinds(contractKinds()); err != nil {
		t.Error("the default:", err)
	}
}

func TestVersion(t *testing.T) {
	c := start(t, "version", "-o", "json")
	if err := <-c.done; err != nil {
		t.Fatal(err)
	}
	var got struct{ Version, Go, Platform string }
	if err := json.Unmarshal([]byte(c.stdout.String()), &got); err != nil || got.Version == "" || got.Go == "" || got.Platform == "" {
		t.Errorf("%q: %v, want version, go and platform", c.stdout, err)
	}
	c = start(t, "version")
	if err := <-c.done; err != nil || !strings.HasPrefix(c.stdout.String(), "metawire "+got.Version+" (") {
		t.Errorf("%q: %v", c.stdout, err)
	}
}

func TestUnknownCommand(t *testing.T) {
	if err := <-start(t, "wach").done; err == nil || !strings.Contains(err.Error(), `unknown command "wach"`) {
		t.Errorf("error %v, want that the command is unknown", err)
	}
}
