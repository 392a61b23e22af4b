package inventory

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testPage = Page{
	Run: testRunID, Number: 7, Last: true, Key: testRunID + "-7", Body: []byte(`{"objects":[]}`), Objects: 1, Bytes: 14,
}

// TestSendTriesAgain: the endpoint answers with the statuses one after the other.
func TestSendTriesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		statuses []int
		retries  int
		err      string
	}{
		"taken at once":           {statuses: []int{204}},
		"server errors, then 204": {statuses: []int{500, 502, 503, 501, 204}, retries: 4},
		"too many, then 204":      {statuses: []int{429, 429, 204}, retries: 2},
		"never":                   {statuses: []int{500, 500, 500, 500, 500}, retries: 4, err: "answered 500 Internal Server Error: no wonder"},
		"another success":         {statuses: []int{200}, err: "answered 200 OK where only 204 is success: no wonder"},
		"accepted":                {statuses: []int{202}, err: "answered 202 Accepted where only 204 is success"},
		"refused":                 {statuses: []int{400}, err: "answered 400 Bad Request: no wonder"},
		"unauthorized":            {statuses: []int{401}, err: "answered 401 Unauthorized: no wonder"},
		"not modified":            {statuses: []int{304}, err: "answered 304 Not Modified, a redirect that is not followed"},
	} {
		t.Run(name, func(t *testing.T) {
			var bodies, keys []string
			s := newTestSender(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				bodies, keys = append(bodies, string(body)), append(keys, r.Header.Get("Idempotency-Key"))
				w.WriteHeader(c.statuses[len(bodies)-1])
				_, _ = io.WriteString(w, "no\x00 \r\n\x1b wonder")
			})), SenderOptions{Attempts: 5})
			retries, err := s.Send(t.Context(), testPage)
			if retries != c.retries || len(bodies) != len(c.statuses) {
				t.Errorf("%d retries, %d requests; want %d retries", retries, len(bodies), c.retries)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			for n := range bodies {
				if bodies[n] != string(testPage.Body) || keys[n] != testPage.Key {
					t.Errorf("attempt %d sent %q with the key %q", n, bodies[n], keys[n])
				}
			}
		})
	}
}

// TestSendTellsTheFirstFailure: a request that is tried again for minutes is told
// of at once, at warn level, and once.
func TestSendTellsTheFirstFailure(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	var log buffer
	s := newTestSender(t, gone.URL, SenderOptions{Attempts: 4, Log: slog.New(slog.NewJSONHandler(&log, nil))})
	if _, err := s.Send(t.Context(), testPage); err == nil {
		t.Fatal("no error")
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"WARN"`) || !strings.Contains(got, "connection refused") || !strings.Contains(got, gone.URL) {
		t.Errorf("it logs, at info level:\n%s", got)
	}
}

func TestSendHeaders(t *testing.T) {
	var got http.Header
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.WriteHeader(http.StatusNoContent)
	}))
	s := newTestSender(t, url, SenderOptions{UserAgent: "metawire/1.2"})
	p := testPage
	p.Gzip = true
	if _, err := s.Send(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"Accept": {"application/json"}, "Content-Type": {"application/json"}, "Content-Encoding": {"gzip"},
		"Content-Length": {"14"}, "Idempotency-Key": {testRunID + "-7"}, "Metawire-Run": {testRunID}, "Metawire-Page": {"7"},
		"Metawire-Last": {"true"}, "User-Agent": {"metawire/1.2"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := s.Send(t.Context(), testPage); err != nil || got.Get("Content-Encoding") != "" {
		t.Errorf("a plain page: %v, Content-Encoding %q", err, got.Get("Content-Encoding"))
	}
}

// TestSendRetryAfter: what is asked for is waited for, and not begun when there
// is no time for it.
func TestSendRetryAfter(t *testing.T) {
	n := 0
	after := "1"
	s := newTestSender(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n == 1 {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})), SenderOptions{Total: 10 * time.Second})
	begun := time.Now()
	if _, err := s.Send(t.Context(), testPage); err != nil || time.Since(begun) < time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	n, after, begun = 0, "3600", time.Now()
	_, err := s.Send(t.Context(), testPage)
	if err == nil || !strings.Contains(err.Error(), "429 Too Many Requests (Retry-After: 3600)") || time.Since(begun) > time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

// TestSendIsBounded: by the total time, whatever the attempts do; the error says
// what came of the last.
func TestSendIsBounded(t *testing.T) {
	s := newTestSender(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
	})), SenderOptions{Attempts: 1 << 30, Total: 50 * time.Millisecond})
	_, err := s.Send(t.Context(), testPage)
	if err == nil || !strings.Contains(err.Error(), "not taken within 50ms; the last attempt: answered 502") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Send(ctx, testPage); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSendRedirects(t *testing.T) {
	var elsewhere []string
	other := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
	}))
	moved := 0
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("the-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newTestSender(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other+"/x?token=the-token", http.StatusTemporaryRedirect)
		case "/get":
			http.Redirect(w, r, "/new", http.StatusFound)
		case "/old":
			http.Redirect(w, r, "/new", http.StatusPermanentRedirect)
		case "/new":
			if string(body) == string(testPage.Body) && r.Header.Get("Authorization") == "Bearer the-token" {
				moved++
				w.WriteHeader(http.StatusNoContent)
			}
		}
	})), SenderOptions{TokenFile: token})
	for path, want := range map[string]string{
		"/away": "307 Temporary Redirect, a redirect that is not followed (to the host 127.0.0.1",
		"/get":  "302 Found, a redirect that is not followed",
		"/old":  "",
	} {
		p := testPage
		p.Path = path
		_, err := s.Send(t.Context(), p)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "the-token")) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(elsewhere) > 0 || moved != 1 {
		t.Errorf("another host was asked %d times, the new path %d times", len(elsewhere), moved)
	}
}

func TestSendPrivateCA(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newTestSender(t, server.URL, SenderOptions{CAFile: ca}).Send(t.Context(), testPage); err != nil {
		t.Error(err)
	}
	retries, err := newTestSender(t, server.URL, SenderOptions{}).Send(t.Context(), testPage)
	if err == nil || retries != 0 || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the CA: %v after %d retries", err, retries)
	}
}

func TestNewSenderErrors(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		endpoint, err string
		o             SenderOptions
	}{
		"no URL":        {endpoint: "://pass:word@x", err: "not a URL"},
		"no scheme":     {endpoint: "example.com/x", err: "not an http or https URL"},
		"ftp":           {endpoint: "ftp://u:hunter2@example.com", err: "not an http or https URL"},
		"credentials":   {endpoint: "https://u:hunter2@example.com", err: "holds credentials"},
		"CA is missing": {endpoint: "https://x", o: SenderOptions{CAFile: filepath.Join(dir, "no")}, err: "read the CA bundle"},
		"CA is empty":   {endpoint: "https://x", o: SenderOptions{CAFile: empty}, err: "holds no certificate"},
		"half a login":  {endpoint: "https://x", o: SenderOptions{AccessKeys: AccessKeys{AccessKey: "hunter2"}}, err: "secret key are needed"},
		"both":          {endpoint: "https://x", o: SenderOptions{AccessKeys: AccessKeys{AccessKey: "a"}, TokenFile: "b"}, err: "only one"},
	} {
		if _, err := NewSender(c.endpoint, c.o); err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCleanText(t *testing.T) {
	long := strings.Repeat("a", 300)
	for in, want := range map[string]string{
		"as\tit\r\nis\x00":                        "as it is",
		"key s3cret/+ and s3cret%2F%2B":           "key *** and ***",
		`{"password":"hunter2","x":1}`:            `{"password":"***","x":1}`,
		"token=hunter2&b=1":                       "token=***&b=1",
		"Authorization: Bearer hunter2hunter2":    "Authorization: ***",
		"sent Bearer hunter2hunter2 to it":        "sent Bearer *** to it",
		"at http://u:hunter2@proxy:1":             "at http://***@proxy:1",
		"jwt eyJhbGciOi.eyJzdWIi.c2ln here":       "jwt *** here",
		"s3\x00cret/+ s3cret/\x07+":               "s3 cret/+ s3cret/ +",
		long:                                      long[:maxShown] + "...",
		strings.Repeat("ä", 200):                  strings.Repeat("ä", 128) + "...",
		"right\u202eleft \u200b zero \xff broken": "right left zero broken",
	} {
		if got := cleanText(in, []string{"s3cret/+", ""}); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	// A secret that is cut at the end of what was read is not shown in part.
	if got := cleanBody([]byte("x s3cre"), true, []string{"s3cret/+"}); strings.Contains(got, "s3") {
		t.Errorf("%q", got)
	}
}
