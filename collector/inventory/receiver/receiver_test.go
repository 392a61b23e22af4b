package receiver_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

const runID = "0123456789abcdef01234567"

// ask makes a request and returns the answer; headers are "Name: value".
func ask(t *testing.T, h http.Handler, line, body string, headers ...string) (int, string) {
	t.Helper()
	method, path, _ := strings.Cut(line, " ")
	q := httptest.NewRequest(method, path, strings.NewReader(body))
	q.Header.Set("Content-Type", "application/json")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		q.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func object(uid string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"uid":%q,"name":"a"}}`, uid)
}

func zipped(t *testing.T, s string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestObjects(t *testing.T) {
	one := `{"objects":[` + object("1") + `]}`
	page := []string{"Metawire-Run: r", "Metawire-Page: 1", "Metawire-Last: true", "Idempotency-Key: k"}
	for name, c := range map[string]struct {
		body    string
		headers []string
		status  int
		why     string
	}{
		"plain":                 {body: one, status: 204},
		"with headers":          {body: one, headers: page, status: 204},
		"empty":                 {body: `{"objects":[]}`, status: 204},
		"gzip":                  {body: zipped(t, one), headers: []string{"Content-Encoding: gzip"}, status: 204},
		"gzip without header":   {body: zipped(t, one), status: 400, why: "not what the contract says"},
		"header without gzip":   {body: one, headers: []string{"Content-Encoding: gzip"}, status: 400, why: "gzip, and the body is not"},
		"broken gzip":           {body: zipped(t, one)[:30], headers: []string{"Content-Encoding: gzip"}, status: 400, why: "read the body"},
		"another coding":        {body: one, headers: []string{"Content-Encoding: br"}, status: 415, why: `"br" is not gzip`},
		"another type":          {body: one, headers: []string{"Content-Type: text/plain"}, status: 415, why: `"text/plain" is not application/json`},
		"no objects":            {body: `{}`, status: 400, why: `no "objects"`},
		"unknown key":           {body: `{"objects":[],"x":1}`, status: 400, why: `unknown field "x"`},
		"two values":            {body: `{"objects":[]}{}`, status: 400, why: "goes on after"},
		"no uid":                {body: `{"objects":[` + object("") + `]}`, status: 204},
		"no name":               {body: `{"objects":[{"apiVersion":"v1","kind":"Pod"}]}`, status: 422, why: "object 0 has no metadata.name"},
		"deleted without uid":   {body: `{"objects":[],"deleted":[{"kind":"Pod"}]}`, status: 422, why: "deleted 0 lacks"},
		"too large":             {body: `{"objects":[]` + strings.Repeat(" ", 1000) + `}`, status: 413, why: "more than 1000 bytes"},
		"large when unpacked":   {body: zipped(t, `{"objects":[]`+strings.Repeat(" ", 1000)+`}`), headers: []string{"Content-Encoding: gzip"}, status: 413, why: "more than"},
		"page without run":      {body: one, headers: page[1:], status: 400, why: "without Metawire-Run"},
		"page without key":      {body: one, headers: page[:3], status: 400, why: "Idempotency-Key"},
		"page is not a number":  {body: one, headers: []string{"Metawire-Page: x"}, status: 400, why: `Metawire-Page "x"`},
		"last is not a boolean": {body: one, headers: []string{page[0], page[1], page[3]}, status: 400, why: `Metawire-Last ""`},
	} {
		r := receiver.New(receiver.Options{MaxBody: 1000})
		status, why := ask(t, r, "POST /any/path", c.body, c.headers...)
		if status != c.status || !strings.Contains(why, c.why) || (status == 204) != (why == "") {
			t.Errorf("%s: %d %s", name, status, why)
		}
		if k := r.Kept(); (k.Refused == 0) != (c.status == 204) {
			t.Errorf("%s: %d refused", name, k.Refused)
		}
	}
}

func TestKeys(t *testing.T) {
	r := receiver.New(receiver.Options{})
	body := func(uid string) string { return `{"objects":[` + object(uid) + `]}` }
	for range 2 {
		if status, why := ask(t, r, "POST /", body("1"), "Idempotency-Key: k"); status != 204 {
			t.Error(status, why)
		}
	}
	if status, why := ask(t, r, "POST /", body("2"), "Idempotency-Key: k"); status != 422 || !strings.Contains(why, "with another body") {
		t.Error(status, why)
	}
	// The same bytes compressed are the same page.
	if status, why := ask(t, r, "POST /", zipped(t, body("1")), "Idempotency-Key: k", "Content-Encoding: gzip"); status != 204 {
		t.Error(status, why)
	}
	if k := r.Kept(); k.Duplicates != 2 || k.Times["1"] != 1 || len(k.Objects) != 1 {
		t.Errorf("%+v", k)
	}
	if status, _ := ask(t, r, "POST /", `{"objects":[],"deleted":[{"uid":"1","apiVersion":"v1","kind":"Pod","name":"a"}]}`); status != 204 {
		t.Error(status)
	}
	if k := r.Kept(); len(k.Objects) != 0 || k.Deleted["1"].Name != "a" {
		t.Errorf("%+v", k)
	}
}

func TestCompleteRun(t *testing.T) {
	r := receiver.New(receiver.Options{})
	for _, c := range []struct {
		page   int
		last   bool
		closed bool
	}{{1, false, false}, {3, true, false}, {3, true, false}, {2, false, true}} {
		status, why := ask(t, r, "POST /", `{"objects":[]}`, "Metawire-Run: r", fmt.Sprint("Metawire-Page: ", c.page),
			fmt.Sprint("Metawire-Last: ", c.last), fmt.Sprint("Idempotency-Key: k", c.page))
		if got := r.Kept().Runs["r"]; status != 204 || got.Closed != c.closed {
			t.Errorf("page %d: %d %s, %+v", c.page, status, why, got)
		}
	}
}

func TestLogin(t *testing.T) {
	now := time.Now()
	r := receiver.New(receiver.Options{AccessKey: "a", SecretKey: "s", Lifetime: time.Minute, Now: func() time.Time { return now }})
	const login = "POST /account/access_keys/login"
	if status, why := ask(t, r, login, `{"accessKey":"a","secretKey":"x"}`); status != 401 || !strings.Contains(why, "is wrong") {
		t.Error(status, why)
	}
	status, body := ask(t, r, login, `{"accessKey":"a","secretKey":"s"}`)
	var in struct {
		Token     string `json:"access_token"`
		ExpiresIn int    `json:"expires_in"`
		Type      string `json:"token_type"`
	}
	if err := json.Unmarshal([]byte(body), &in); err != nil || status != 200 || in.ExpiresIn != 60 || in.Type != "Bearer" {
		t.Fatal(status, body, err)
	}
	send := func(header string, want int, why string) {
		t.Helper()
		if status, got := ask(t, r, "POST /", `{"objects":[]}`, header); status != want || !strings.Contains(got, why) {
			t.Error(status, got)
		}
	}
	send("X: y", 401, "is missing")
	send("Authorization: Bearer x", 401, "not one that a login gave")
	send("Authorization: Bearer "+in.Token, 204, "")
	now = now.Add(time.Minute)
	send("Authorization: Bearer "+in.Token, 401, "has expired")
	if status, _ := ask(t, receiver.New(receiver.Options{}), login, `{}`); status != 404 {
		t.Error("a login without keys:", status)
	}
	if status, _ := ask(t, receiver.New(receiver.Options{Token: "t"}), "POST /", `{"objects":[]}`, "Authorization: Bearer t"); status != 204 {
		t.Error("a token:", status)
	}
}

// TestRunOrder: a run's steps, one after the other; each is asked for before its
// turn too.
func TestRunOrder(t *testing.T) {
	r := receiver.New(receiver.Options{Integration: "5f,false"})
	const base, id = "/integrations/k8s/c/fetching", `"fetchingId":"` + runID + `"`
	steps := []struct{ line, body string }{
		{"GET " + base + "?clusterUniqueId=u&getIntegrationId=true&fetchingId=" + runID, ""},
		{"POST " + base + "/helm?integrationId=5f", `{` + id + `,"helmReleases":[],"k8sTypes":[{"kind":"Pod","namespaced":true,"apiVersion":"v1"}]}`},
		{"POST " + base + "/objects?integrationId=5f", `{` + id + `,"k8sObjects":[{"kind":"Pod","object":` + object("1") + `}]}`},
		{"PATCH " + base + "?integrationId=5f", `{` + id + `,"clusterId":"c"}`},
		{"POST " + base + "/metadata?integrationId=5f", `{` + id + `,"startDate":"2026-01-01T00:00:00Z","endDate":"2026-01-01T00:01:00Z","result":"success","collectorVersion":"1","collectorStats":{}}`},
	}
	for n := range steps {
		for early := n + 1; early < len(steps) && n != 2; early++ { // a run may have no objects
			if status, why := ask(t, r, steps[early].line, steps[early].body); status != 404 && status != 409 {
				t.Errorf("step %d before step %d: %d %s", early, n, status, why)
			}
		}
		want := http.StatusNoContent
		if n == 0 {
			want = http.StatusOK
		}
		if status, why := ask(t, r, steps[n].line, steps[n].body); status != want {
			t.Errorf("step %d: %d %s", n, status, why)
		}
	}
	for n := range steps[:4] {
		if status, _ := ask(t, r, steps[n].line, steps[n].body); n != 1 && status != 409 {
			t.Errorf("step %d after the end: %d", n, status)
		}
	}
	if k := r.Kept(); !k.Runs[runID].Closed || k.Runs[runID].Result != "success" || len(k.Objects) != 1 {
		t.Errorf("%+v", k)
	}
}

func TestRunRefused(t *testing.T) {
	const query = "clusterUniqueId=u&getIntegrationId=true&fetchingId=" + runID
	for line, want := range map[string]string{
		"GET /integrations/k8s/C/fetching?" + query:                                           `"C" does not match`,
		"GET /integrations/k8s/c/fetching?" + query + "&x=1":                                  `unknown parameter "x"`,
		"GET /integrations/k8s/c/fetching?" + query[:len(query)-1]:                            "24 hexadecimal digits",
		"GET /integrations/k8s/c/fetching?" + strings.TrimPrefix(query, "clusterUniqueId=u&"): "clusterUniqueId is missing",
		"POST /integrations/k8s/c/fetching/helm?integrationId=x":                              `"x" is not the one`,
	} {
		if status, why := ask(t, receiver.New(receiver.Options{}), line, `{}`); status/100 != 4 || !strings.Contains(why, want) {
			t.Errorf("%s: %d %s", line, status, why)
		}
	}
	for _, want := range []int{402, 409, 425} {
		status, _ := ask(t, receiver.New(receiver.Options{Fetching: want}), "GET /integrations/k8s/c/fetching?"+query, "")
		if status != want {
			t.Error(status, want)
		}
	}
}
