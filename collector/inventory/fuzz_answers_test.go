package inventory

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzAnswers: whatever an endpoint answers to a login, to the opening of a run
// or to a page, nothing panics, what is believed can be sent, and errors are one
// short line without our keys.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"t","expires_in":3600,"token_type":"Bearer"}`, `{"access_token":"t","expires_in":"1e300"}`,
		`{"access_token":"a\nb"}`, `{"access_token":"t","expires_in":-1}`, `{"access_token":"t","expires_in":null,"token_type":"mac"}`,
		`[]`, ``, `"5f,true"`, `5f,false`, "5f\x00", `"\ud800,true"`, `,`, `"`, strings.Repeat("x", 70_000), testSecretKey,
	} {
		for _, status := range []int{200, 204, 302, 400, 401, 425} {
			f.Add(status, body, "/x")
		}
	}
	f.Add(307, "", "http://[::1")
	f.Add(429, testAccessKey, "99999999999999999999")
	f.Fuzz(func(t *testing.T, status int, body, header string) {
		if g, err := parseGrant([]byte(body)); err == nil {
			if !printable(g.token) || g.lifetime < 0 || g.lifetime > 100*365*24*time.Hour {
				t.Errorf("%+v", g)
			}
		}
		if o, err := parseOpened([]byte(body)); err == nil && (o.integration == "" || strings.ContainsAny(o.integration, "&?#/ \n")) {
			t.Errorf("%+v", o)
		}
		s, err := NewSender("http://endpoint.example", SenderOptions{AccessKeys: testKeys})
		if err != nil {
			t.Fatal(err)
		}
		s.auth.(*login).known.add(testAccessKey, testSecretKey) //nolint:errcheck,forcetypeassert // it is one
		a := answer{status: status, body: []byte(body), cut: len(body)%2 == 0, header: http.Header{"Location": {header}, "Retry-After": {header}}}
		said := s.calls.refuse(request{method: http.MethodPost, url: s.endpoint}, a, http.StatusNoContent).Error()
		if len(said) > 4*maxShown || strings.ContainsAny(said, "\n\r\x00\x1b") || strings.Contains(said, testSecretKey) || strings.Contains(said, testAccessKey) {
			t.Errorf("%q", said)
		}
		_ = fmt.Sprint(retryAfter(&http.Response{StatusCode: http.StatusTooManyRequests, Header: a.header}))
		if _, err := parseSpooled([]byte(body)); err == nil {
			t.Errorf("a page in the spool: %q", body)
		}
	})
}
