package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/collector/inventory/receiver"
	"github.com/metawire/metawire/migrate"
)

// TestProbe: an endpoint is logged in to, and a run is opened only if that is
// asked for; who says no is told from who is not there.
func TestProbe(t *testing.T) {
	const key, secret = "canary-access-key", "canary-secret-key"
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, tc := range map[string]struct {
		service   receiver.Options
		change    func(*migrate.Endpoint)
		want      string
		unreached bool
		runs      int
	}{
		"logged in":            {},
		"opened":               {change: func(e *migrate.Endpoint) { e.Open = true }, runs: 1},
		"too early":            {service: receiver.Options{Fetching: http.StatusTooEarly}, change: func(e *migrate.Endpoint) { e.Open = true }},
		"another cluster's id": {service: receiver.Options{Fetching: http.StatusConflict}, change: func(e *migrate.Endpoint) { e.Open = true }, want: "409"},
		"not asked for a run":  {service: receiver.Options{Fetching: http.StatusConflict}},
		"keys that are none":   {change: func(e *migrate.Endpoint) { e.SecretKey = "other" }, want: "401"},
		"not there":            {change: func(e *migrate.Endpoint) { e.URL, e.LoginURL = gone.URL, gone.URL }, want: "refused", unreached: true},
	} {
		t.Run(name, func(t *testing.T) {
			tc.service.AccessKey, tc.service.SecretKey = key, secret
			service := receiver.New(tc.service)
			server := httptest.NewServer(service)
			defer server.Close()
			e := migrate.Endpoint{URL: server.URL, LoginURL: server.URL, ClusterID: "c", ClusterUID: "uid", AccessKey: key, SecretKey: secret}
			if tc.change != nil {
				tc.change(&e)
			}
			err := probe(t.Context(), e)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if _, ok := errors.AsType[net.Error](err); ok != tc.unreached {
				t.Errorf("%v says that nobody is there: %t, want %t", err, ok, tc.unreached)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds a credential: %v", err)
			}
			if n := len(service.Kept().Runs); n != tc.runs {
				t.Errorf("%d runs were opened, want %d", n, tc.runs)
			}
		})
	}
}

// TestMigrateNamesWhatIsNotThere: who names a release expects it to be there.
func TestMigrateNamesWhatIsNotThere(t *testing.T) {
	kubeconfig := answers{
		"/api/v1/secrets": corev1.SecretList{}, "/api/v1/namespaces/falco/secrets": corev1.SecretList{}, "/apis/apps/v1/deployments": appsv1.DeploymentList{},
	}.serve(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"none is named":    {nil, ""},
		"a release":        {[]string{"--release", "gone"}, `there is no release "gone" of a predecessor's chart in any namespace`},
		"in a namespace":   {[]string{"--release", "gone", "-n", "falco"}, `there is no release "gone" of a predecessor's chart in namespace "falco"`},
		"to be undone":     {[]string{"--release", "gone", "--rollback"}, `there is no migration to undo: of a release "gone"`},
		"as a program":     {[]string{"--release", "gone", "-o", "json"}, `"gone"`},
		"only to be shown": {[]string{"--release", "gone", "--dry-run"}, `"gone"`},
	} {
		t.Run(name, func(t *testing.T) {
			run := start(t, append([]string{"migrate", "--kubeconfig", kubeconfig}, c.args...)...)
			err := <-run.done
			if (err == nil) != (c.want == "") || err != nil && (errors.Is(err, errFinding) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if says := strings.Contains(run.stdout.String(), "There is nothing to migrate."); says != (c.want == "") {
				t.Errorf("stdout %q", run.stdout)
			}
		})
	}
}
