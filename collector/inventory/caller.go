package inventory

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// caller makes requests, again when that may help: after network errors, 429
// and 5xx. Any goroutine may use it.
type caller struct {
	http    *retryablehttp.Client
	total   time.Duration
	agent   string
	log     *slog.Logger
	secrets func() []string // what no error and no log line may hold
}

// request is one request, with all its attempts.
type request struct {
	method string
	url    *url.URL
	header http.Header
	body   []byte
	// authorization is asked before every attempt: a token may expire between
	// two. Nil or an empty answer sends none.
	authorization func(context.Context) (string, error)
}

// answer is the last answer to a request.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	cut     bool   // body is not all of it
	used    string // the Authorization that it answers
	retries int
}

// attempts is what is known of a request while it is made.
type attempts struct {
	request *request
	retries int
	used    string
	last    error // what came of the last attempt that failed
}

type attemptsKey struct{}

func newCaller(o SenderOptions) (*caller, error) {
	roots, err := authorities(o.CAFile)
	if err != nil {
		return nil, err
	}
	dial := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck,forcetypeassert // it is one
	dial.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	dial.MaxIdleConnsPerHost = 8
	dial.DisableCompression = true
	c := &caller{total: o.Total, agent: o.UserAgent, log: o.Log, secrets: func() []string { return nil }}
	c.http = &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: dial, Timeout: o.Timeout, CheckRedirect: sameHost},
		RetryWaitMin: o.Wait, RetryWaitMax: o.MaxWait, RetryMax: o.Attempts - 1,
		CheckRetry: c.again, Backoff: wait, PrepareRetry: prepare,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	return c, nil
}

// authorities are the system's and those of the file; nil, the system's alone,
// without one.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // nil is the system's pool
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA bundle: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a scratch image has none
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the CA bundle %q holds no certificate", file)
	}
	return pool, nil
}

// sameHost lets a redirect be followed that repeats the request at the same host
// and no less secretly. Any other is the answer: what we send, credentials too,
// is for the host that was configured.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > 3 || r.Method != first.Method || r.URL.Hostname() != first.URL.Hostname() ||
		(r.URL.Port() != first.URL.Port() && r.URL.Scheme == first.URL.Scheme) ||
		(first.URL.Scheme == "https" && r.URL.Scheme != "https") {
		return http.ErrUseLastResponse
	}
	return nil
}

// do makes a request until it is answered by something else than 429 or 5xx, or
// attempts or time have run out: then with the last answer, or with an error
// that holds no secret. It blocks for the total time at most.
func (c *caller) do(ctx context.Context, r request) (answer, error) {
	tries := &attempts{request: &r}
	ctx, cancel := context.WithTimeoutCause(ctx, c.total, fmt.Errorf("it was not taken within %v", c.total))
	defer cancel()
	var body any
	if r.body != nil {
		body = r.body
	}
	q, err := retryablehttp.NewRequestWithContext(context.WithValue(ctx, attemptsKey{}, tries), r.method, r.url.String(), body)
	if err != nil {
		return answer{}, cleanError(err, c.secrets())
	}
	q.Header = r.header.Clone()
	q.Header.Set("User-Agent", c.agent)
	if err := tries.authorize(ctx, q.Request); err != nil {
		return answer{}, err
	}
	out, err := c.http.Do(q)
	if err != nil {
		if out != nil {
			_ = out.Body.Close()
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			if tries.last != nil {
				err = fmt.Errorf("%w; the last attempt: %w", err, tries.last)
			}
		}
		return answer{retries: tries.retries}, fmt.Errorf("%s %s: %w", r.method, where(r.url), cleanError(err, c.secrets()))
	}
	defer out.Body.Close()
	a := answer{status: out.StatusCode, header: out.Header, used: tries.used, retries: tries.retries}
	// A body that breaks off does not change what the status says; one that a
	// caller needs whole does not parse.
	a.body, _ = io.ReadAll(io.LimitReader(out.Body, maxAnswer+1))
	if a.cut = len(a.body) > maxAnswer; a.cut {
		a.body = a.body[:maxAnswer]
	}
	return a, nil
}

func (a *attempts) authorize(ctx context.Context, r *http.Request) error {
	if a.request.authorization == nil {
		return nil
	}
	value, err := a.request.authorization(ctx)
	if err != nil {
		return err
	}
	// The header is shared with the attempt before, which may still be written.
	r.Header = r.Header.Clone()
	r.Header.Del("Authorization")
	if value != "" {
		r.Header.Set("Authorization", value)
	}
	a.used = value
	return nil
}

// prepare is before every attempt but the first.
func prepare(r *http.Request) error {
	tries, ok := r.Context().Value(attemptsKey{}).(*attempts)
	if !ok {
		return nil
	}
	tries.retries++
	return tries.authorize(r.Context(), r)
}

// again says whether another attempt may help.
func (c *caller) again(ctx context.Context, out *http.Response, err error) (bool, error) {
	retry, stop := retryablehttp.DefaultRetryPolicy(ctx, out, err)
	if out != nil {
		retry = stop == nil && (out.StatusCode == http.StatusTooManyRequests || out.StatusCode >= 500)
	}
	if !retry {
		return false, stop
	}
	why := cleanError(err, c.secrets())
	if out != nil {
		why = fmt.Errorf("answered %d", out.StatusCode)
		// What cannot be waited for is the answer now.
		if end, ok := ctx.Deadline(); ok && retryAfter(out) > 0 && time.Until(end) < retryAfter(out) {
			return false, nil
		}
	}
	if tries, ok := ctx.Value(attemptsKey{}).(*attempts); ok {
		tries.last = why
		level := slog.LevelDebug
		if tries.retries == 0 { // a request may be tried for minutes: that it has begun to fail is told at once
			level = slog.LevelWarn
		}
		c.log.Log(ctx, level, "the inventory endpoint did not take a request", "method", tries.request.method,
			"url", where(tries.request.url), "retries", tries.retries, "error", why)
	}
	return true, nil
}

// wait doubles from lo to hi, half of it random, so that clusters do not come
// back together. Retry-After is waited for whatever hi says.
func wait(lo, hi time.Duration, attempt int, out *http.Response) time.Duration {
	d := retryablehttp.DefaultBackoff(lo, hi, attempt, nil)
	d = d/2 + rand.N(d/2+1) //nolint:gosec // spreads, hides nothing
	if asked := retryAfter(out); asked > 0 {
		return asked + d
	}
	return d
}

// retryAfter is what a 429 or 503 asks for, 0 for nothing.
func retryAfter(out *http.Response) time.Duration {
	if out == nil {
		return 0
	}
	return max(0, retryablehttp.DefaultBackoff(0, 0, 0, out))
}

// where is a URL without its query, which may hold credentials.
func where(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// refusal is an answer that is not the one that was needed.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// refuse makes an error of an answer to a request.
func (c *caller) refuse(r request, a answer, want int) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s %s: answered %d %s", r.method, where(r.url), a.status, http.StatusText(a.status))
	switch {
	case a.status >= 200 && a.status < 300:
		fmt.Fprintf(&text, " where only %d is success", want)
	case a.status >= 300 && a.status < 400:
		text.WriteString(", a redirect that is not followed")
		if to, err := url.Parse(a.header.Get("Location")); err == nil && to.Host != "" {
			fmt.Fprintf(&text, " (to the host %s)", cleanText(to.Host, c.secrets()))
		}
	}
	if after := cleanText(a.header.Get("Retry-After"), c.secrets()); after != "" {
		fmt.Fprintf(&text, " (Retry-After: %s)", after)
	}
	if shown := cleanBody(a.body, a.cut, c.secrets()); shown != "" {
		fmt.Fprintf(&text, ": %s", shown)
	}
	return &refusal{status: a.status, text: text.String()}
}

// statusOf is the status that an error is of, 0 if the endpoint did not answer.
func statusOf(err error) int {
	if _, ok := errors.AsType[*loginError](err); ok {
		return 0
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status
	}
	return 0
}
