package inventory

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

const (
	testAccessKey = "AK-canary-0001"
	testSecretKey = `SK/canary+"0002"`
)

var testKeys = AccessKeys{AccessKey: testAccessKey, SecretKey: testSecretKey}

type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestLogin(t *testing.T) {
	clock := &fakeClock{now: time.Now()}
	r := receiver.New(receiver.Options{AccessKey: testAccessKey, SecretKey: testSecretKey, Lifetime: time.Hour, Now: clock.Now})
	s := newTestSender(t, serve(t, r), SenderOptions{AccessKeys: testKeys, Now: clock.Now})
	page := 0
	send := func(logins, refused int) {
		t.Helper()
		page++
		p := testPage
		p.Key, p.Number = fmt.Sprint("key-", page), page
		if _, err := s.Send(t.Context(), p); err != nil {
			t.Error(err)
		}
		if k := r.Kept(); k.Logins != logins || k.Refused != refused || len(k.Pages) != page {
			t.Errorf("%d logins, %d refused, %d pages; want %d, %d, %d", k.Logins, k.Refused, len(k.Pages), logins, refused, page)
		}
	}
	send(1, 0)
	send(1, 0)
	clock.pass(59*time.Minute - time.Second)
	send(1, 0)
	clock.pass(2 * time.Second) // before it expires, so that nothing is refused
	send(2, 0)
	r.Revoke() // nobody told us: one request is refused
	send(3, 1)
}

// TestLoginOnce: many requests without a token log in once.
func TestLoginOnce(t *testing.T) {
	r := receiver.New(receiver.Options{AccessKey: testAccessKey, SecretKey: testSecretKey})
	s := newTestSender(t, serve(t, r), SenderOptions{AccessKeys: testKeys})
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			p := testPage
			p.Number, p.Key = n+1, fmt.Sprint("key-", n)
			if _, err := s.Send(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if k := r.Kept(); k.Logins != 1 || len(k.Pages) != 8 {
		t.Errorf("%d logins, %d pages", k.Logins, len(k.Pages))
	}
}

// TestUnauthorizedOnce: a 401 that another token does not change is the answer.
func TestUnauthorizedOnce(t *testing.T) {
	logins, posts := 0, 0
	s := newTestSender(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, "/login") {
			logins++
			_, _ = fmt.Fprintf(w, `{"access_token":"token-%d","expires_in":"60","token_type":"bearer","scope":"all"}`, logins)
			return
		}
		posts++
		w.WriteHeader(http.StatusUnauthorized)
	})), SenderOptions{AccessKeys: testKeys})
	if _, err := s.Send(t.Context(), testPage); statusOf(err) != http.StatusUnauthorized || logins != 2 || posts != 2 {
		t.Errorf("%v after %d logins and %d posts", err, logins, posts)
	}
}

func TestBearerIsReadAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Error(err)
		}
	}
	want := "token-1"
	s := newTestSender(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") == "Bearer token-2" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		write(want) // somebody renews it while it is refused
		w.WriteHeader(http.StatusUnauthorized)
	})), SenderOptions{TokenFile: file})
	write("token-1")
	if _, err := s.Send(t.Context(), testPage); statusOf(err) != http.StatusUnauthorized {
		t.Error(err)
	}
	want = "token-2"
	if retries, err := s.Send(t.Context(), testPage); err != nil || retries != 1 {
		t.Error(err, retries)
	}
	write("two words")
	if _, err := s.Send(t.Context(), testPage); err == nil || strings.Contains(err.Error(), "words") {
		t.Error(err)
	}
}

// TestSecretsAreNotShown: an endpoint that gives back all it got, in errors of
// every kind, to every step.
func TestSecretsAreNotShown(t *testing.T) {
	const token = "tok.canary-0003"
	for _, status := range []int{200, 201, 204, 302, 307, 400, 401, 402, 409, 425, 429, 500, 503} {
		for _, loginFails := range []bool{false, true} {
			var log buffer
			var leaked []string
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				body, _ := io.ReadAll(q.Body)
				for name, values := range q.Header {
					if name != "Authorization" && hasSecret(strings.Join(values, " "), token) {
						leaked = append(leaked, name)
					}
				}
				if strings.HasSuffix(q.URL.Path, "/login") && !loginFails {
					_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_in":3600,"token_type":"Bearer"}`, token)
					return
				}
				echo := q.Header.Get("Authorization") + " and " + string(body) + " " + testAccessKey + testSecretKey
				if !loginFails { // else we never had it
					echo += token
				}
				w.Header().Set("Location", "http://"+testAccessKey+".example/"+testAccessKey)
				w.Header().Set("Retry-After", testAccessKey)
				w.WriteHeader(status)
				if status != 204 {
					_, _ = io.WriteString(w, echo)
				}
			}))
			s := newTestSender(t, url, SenderOptions{AccessKeys: testKeys, Attempts: 2, Log: debugLog(&log)})
			for name, c := range map[string]Contract{
				"objects": NewObjects(ObjectsOptions{Log: debugLog(&log)}, s), "runs": NewRuns(RunsOptions{}, s),
			} {
				r, err := sendRun(t.Context(), c, testRun(testRunID), testObjects(3, 10), Complete)
				said := fmt.Sprint(err) + mustJSON(t, r) + log.String()
				if loginFails && errors.Is(err, ErrSkipped) {
					t.Errorf("%s, status %d of the login: %v", name, status, err)
				}
				if hasSecret(said, token) {
					t.Errorf("%s, status %d: %s", name, status, said)
				}
			}
			if len(leaked) > 0 {
				t.Errorf("in the headers %v", leaked)
			}
		}
	}
}

func hasSecret(text, token string) bool {
	return strings.Contains(text, "canary-000") || strings.Contains(text, "canary+") || strings.Contains(text, token)
}
