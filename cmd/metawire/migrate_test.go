package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
