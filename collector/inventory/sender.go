package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SenderOptions configures a Sender. Its zero value sends without credentials.
type SenderOptions struct {
	// TokenFile holds a bearer token; it is read anew for every request. Or
	// AccessKeys log in. Both is an error.
	TokenFile  string
	AccessKeys AccessKeys
	// CAFile holds authorities, PEM, that the endpoint's certificate is checked
	// with besides the system's.
	CAFile    string
	UserAgent string // default metawire
	// Attempts is how many a request is given, default 10; Wait is before the
	// second, default 1s, and doubles up to MaxWait, default 1m, half of it random.
	Attempts      int
	Wait, MaxWait time.Duration
	// Timeout bounds an attempt, default 1m; Total all of a request, with what
	// is waited between them, default 5m.
	Timeout, Total time.Duration
	Log            *slog.Logger     // attempts that failed: the first of a request at warn level, others at debug; default none
	Now            func() time.Time // default time.Now
}

// Sender sends pages to an endpoint. Any goroutine may use it. Proxies come from
// the environment: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.
type Sender struct {
	endpoint *url.URL
	calls    *caller
	auth     auth
}

// NewSender returns a sender to the endpoint, an http or https URL without
// credentials. It sends nothing yet.
func NewSender(endpoint string, o SenderOptions) (*Sender, error) {
	o.UserAgent = cmp.Or(o.UserAgent, "metawire")
	o.Attempts = cmp.Or(o.Attempts, 10)
	o.Wait, o.MaxWait = cmp.Or(o.Wait, time.Second), cmp.Or(o.MaxWait, time.Minute)
	o.Timeout, o.Total = cmp.Or(o.Timeout, time.Minute), cmp.Or(o.Total, 5*time.Minute)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Now == nil {
		o.Now = time.Now
	}
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	calls, err := newCaller(o)
	if err != nil {
		return nil, err
	}
	s := &Sender{endpoint: u, calls: calls, auth: noAuth{}}
	keys := o.AccessKeys
	switch {
	case keys != AccessKeys{} && o.TokenFile != "":
		return nil, errors.New("a token file and access keys are configured: only one can be used")
	case keys != AccessKeys{}:
		if s.auth, err = newLogin(cmp.Or(keys.LoginEndpoint, endpoint), keys, calls, o.Now); err != nil {
			return nil, err
		}
	case o.TokenFile != "":
		s.auth = &bearer{file: o.TokenFile}
	}
	calls.secrets = s.auth.secrets
	return s, nil
}

// Login asks the endpoint whether it takes the sender's credentials, and sends
// nothing else. Without a login there is nothing to ask.
func (s *Sender) Login(ctx context.Context) error {
	_, err := s.auth.authorization(ctx)
	return err
}

// parseEndpoint keeps what is wrong out of its errors where it may be a password.
func parseEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return nil, errors.New("the endpoint is not a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fmt.Errorf("the endpoint %q is not an http or https URL", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("the endpoint %q holds credentials: they belong into a file", where(u))
	}
	return u, nil
}

// Send posts a page, with the same bytes at every attempt, until it is
// acknowledged with 204; it says how often it tried again. It blocks for the
// total time at most, twice that if the first token was refused. The error says
// what the endpoint answered last; it holds no credential.
func (s *Sender) Send(ctx context.Context, p Page) (retries int, err error) {
	return s.sendPage(ctx, p, "application/json")
}

func (s *Sender) sendPage(ctx context.Context, p Page, contentType string) (int, error) {
	a, err := s.call(ctx, http.MethodPost, p, contentType, http.StatusNoContent)
	return a.retries, err
}

// call makes a request for a page, or for another step of a run, and wants one
// of the statuses, the first of which is success.
func (s *Sender) call(ctx context.Context, method string, p Page, contentType string, want ...int) (answer, error) {
	r := request{method: method, url: s.below(p.Path), header: pageHeaders(p, contentType), body: p.Body, authorization: s.auth.authorization}
	a, err := s.calls.do(ctx, r)
	// Once: a token may have been revoked. What another token does not change is
	// the answer.
	if err == nil && a.status == http.StatusUnauthorized && s.auth.refused(a.used) {
		before := a.retries + 1
		a, err = s.calls.do(ctx, r)
		a.retries += before
	}
	if err != nil {
		return a, err
	}
	if !slices.Contains(want, a.status) {
		return a, s.calls.refuse(r, a, want[0])
	}
	return a, nil
}

// below is the URL of a path with its query below the endpoint, which may have
// a query of its own.
func (s *Sender) below(path string) *url.URL {
	u := *s.endpoint
	path, query, _ := strings.Cut(path, "?")
	if path != "" {
		u = *u.JoinPath(path)
	}
	u.RawQuery = strings.Trim(u.RawQuery+"&"+query, "&")
	return &u
}

func pageHeaders(p Page, contentType string) http.Header {
	h := http.Header{"Accept": {"application/json"}}
	if p.Body != nil {
		h.Set("Content-Type", contentType)
	}
	if p.Gzip {
		h.Set("Content-Encoding", "gzip")
	}
	if p.Key != "" {
		h.Set("Idempotency-Key", p.Key)
	}
	if p.Run != "" {
		h.Set("Metawire-Run", p.Run)
	}
	if p.Number > 0 {
		h.Set("Metawire-Page", strconv.Itoa(p.Number))
		h.Set("Metawire-Last", strconv.FormatBool(p.Last))
	}
	return h
}
