package integration_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/metawire/metawire/tests/falco/plugin"
)

// record is what a user asked of a resource, by the API server's audit log.
type record struct {
	whole []url.Values // answered lists from their beginning: first pages, and streamed lists
	pages []url.Values // all answered lists, as pages
	open  int          // watches that are open
}

// requests reads the audit log for what a user asked, by resource.
func requests(t *testing.T, user string) map[string]*record {
	t.Helper()
	data, err := os.ReadFile(plane.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	all, started := map[string]*record{}, map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var e struct {
			AuditID, Stage, Verb, RequestURI string
			User                             struct{ Username string }
			ObjectRef                        struct{ Resource string }
			ResponseStatus                   struct{ Code int }
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.User.Username != user {
			continue // the last line may be half written
		}
		u, err := url.Parse(e.RequestURI)
		if err != nil {
			t.Fatal(err)
		}
		r := all[e.ObjectRef.Resource]
		if r == nil {
			r = &record{}
			all[e.ObjectRef.Resource] = r
		}
		answered := e.ResponseStatus.Code == http.StatusOK
		r.add(u.Query(), e.Verb, e.Stage, answered, started[e.AuditID])
		started[e.AuditID] = e.Stage == "ResponseStarted" && answered
	}
	return all
}

func (r *record) add(query url.Values, verb, stage string, answered, started bool) {
	switch {
	case verb == "watch" && stage == "ResponseStarted" && answered:
		r.open++
		if query.Get("sendInitialEvents") == "true" {
			r.whole = append(r.whole, query)
		}
	case verb == "watch" && started:
		r.open--
	case verb == "list" && answered:
		r.pages = append(r.pages, query)
		if query.Get("continue") == "" {
			r.whole = append(r.whole, query)
		}
	}
}

// TestRequestsToTheAPIServer reads from the audit log that every kind is
// listed once and watched once, and never listed without a limit, whether lists
// are streamed, are not asked to be, or cannot be: the API server has that off.
func TestRequestsToTheAPIServer(t *testing.T) {
	const pods, page = 620, 500
	ns := newNamespace(t)
	node := ns + "-a"
	var wait sync.WaitGroup
	for w := range 10 {
		wait.Go(func() {
			for i := w; i < pods; i += 10 {
				if err := api.Create(t.Context(), newPod(ns, fmt.Sprintf("pod-%d", i), node)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	for name, how := range map[string]struct {
		client string // whether the collector asks for streamed lists
		server []string
		paged  bool
	}{
		"streamed": {client: "true"},
		"paged":    {client: "false", paged: true},
		"refused":  {client: "true", server: []string{"--feature-gates=WatchList=false"}, paged: true},
	} {
		t.Run(name, func(t *testing.T) {
			if how.server != nil {
				restart(t, how.server...)
				defer restart(t)
			}
			id := newIdentity(t)
			c := started(t, setup{kubeconfig: id.kubeconfig, env: []string{"KUBE_FEATURE_WatchListClient=" + how.client}})
			converge(t, map[string]*plugin.Client{node: subscribe(t, node, c.at)})
			got := requests(t, id.user)
			for _, resources := range watched() {
				for _, resource := range resources {
					r := got[resource]
					if r == nil {
						t.Errorf("%s: no request", resource)
						continue
					}
					if len(r.whole) != 1 {
						t.Errorf("%s: listed %d times, want once: %v", resource, len(r.whole), r.whole)
					}
					eventually(t, func() error { // the watch is opened after the list
						if n := requests(t, id.user)[resource].open; n != 1 {
							return fmt.Errorf("%s: %d watches are open, want one", resource, n)
						}
						return nil
					})
					for _, query := range r.pages {
						if query.Get("limit") == "" || query.Get("resourceVersion") == "0" {
							t.Errorf("%s: a list without pages: %v", resource, query)
						}
					}
					delete(got, resource)
				}
			}
			if len(got) > 0 {
				t.Errorf("requests for what the collector does not need: %v", got)
			}
			wantPages := 0
			if how.paged {
				wantPages = (pods + page - 1) / page
			}
			if n := len(requests(t, id.user)["pods"].pages); n < wantPages || wantPages == 0 && n > 0 {
				t.Errorf("pods were listed in %d pages, want %d", n, wantPages)
			}
		})
	}
}

// restart starts the API server again, with flags besides its own.
func restart(t *testing.T, flags ...string) {
	t.Helper()
	if err := plane.Restart(t.Context(), "kube-apiserver", flags...); err != nil {
		t.Fatal(err)
	}
}
