package inventory

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// auth is how requests say who sends them. Any goroutine may call its methods.
type auth interface {
	// authorization is the header's value now, empty for none. It may log in.
	authorization(ctx context.Context) (string, error)
	// refused tells that a value was answered with 401, and says whether another
	// may be had.
	refused(value string) bool
	// secrets are all that must not be shown.
	secrets() []string
}

type noAuth struct{}

func (noAuth) authorization(context.Context) (string, error) { return "", nil }
func (noAuth) refused(string) bool                           { return false }
func (noAuth) secrets() []string                             { return nil }

// bearer reads its token anew each time: whoever writes the file renews it.
type bearer struct {
	file string

	known memory
}

func (b *bearer) authorization(context.Context) (string, error) {
	token, err := readSecret(b.file)
	if err != nil {
		return "", fmt.Errorf("read the bearer token: %w", err)
	}
	b.known.add(token)
	return "Bearer " + token, nil
}

func (b *bearer) refused(value string) bool {
	now, err := b.authorization(context.Background())
	return err == nil && now != value
}

func (b *bearer) secrets() []string { return b.known.all() }

// memory holds the secrets that were used last: an answer may speak of one that
// was renewed since.
type memory struct {
	mu   sync.Mutex
	last []string
}

func (m *memory) add(secrets ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range secrets {
		if !slices.Contains(m.last, s) {
			m.last = append(m.last, s)
		}
	}
	m.last = m.last[max(0, len(m.last)-16):]
}

func (m *memory) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.last)
}

// readSecret reads a file that holds a secret and nothing else.
func readSecret(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(content))
	if !printable(s) {
		return "", fmt.Errorf("%q is empty, or holds other than visible ASCII", file)
	}
	return s, nil
}

// printable says whether a secret can stand in a header.
func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// AccessKeys are changed for tokens by a login. Each is in a file that is read
// at every login, or is given as it is.
type AccessKeys struct {
	// LoginEndpoint is the URL before /account/access_keys/login, default the
	// endpoint.
	LoginEndpoint                string
	AccessKeyFile, SecretKeyFile string
	AccessKey, SecretKey         string
}

// loginError is of a login that failed. What it was answered is not what the
// endpoint says of a page or of a run.
type loginError struct{ err error }

func (e *loginError) Error() string { return "log in: " + e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

// login holds the token of the last login.
type login struct {
	url   *url.URL
	keys  AccessKeys
	calls *caller
	now   func() time.Time
	known memory

	// turn is a mutex that can be waited for with a context: of many requests
	// without a token one logs in.
	turn  chan struct{}
	value string    // of the header; empty before the first login
	renew time.Time // when another is to be had; zero is never
}

func newLogin(endpoint string, keys AccessKeys, calls *caller, now func() time.Time) (*login, error) {
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	if keys.AccessKey == "" && keys.AccessKeyFile == "" || keys.SecretKey == "" && keys.SecretKeyFile == "" {
		return nil, errors.New("log in: an access key and a secret key are needed")
	}
	return &login{
		url: u.JoinPath("account/access_keys/login"), keys: keys, calls: calls, now: now, turn: make(chan struct{}, 1),
	}, nil
}

func (l *login) authorization(ctx context.Context) (string, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("wait for the login: %w", context.Cause(ctx))
	}
	if l.value != "" && (l.renew.IsZero() || l.now().Before(l.renew)) {
		return l.value, nil
	}
	l.value = ""
	asked := l.now()
	g, err := l.get(ctx)
	if err != nil {
		return "", &loginError{err}
	}
	l.value, l.renew = "Bearer "+g.token, time.Time{}
	if g.lifetime > 0 {
		// Well before it expires: the clocks differ, and a request takes its time.
		l.renew = asked.Add(g.lifetime - min(g.lifetime/4, time.Minute))
	}
	return l.value, nil
}

func (l *login) refused(value string) bool {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.value == value { // else somebody has already renewed it
		l.value = ""
	}
	return true
}

func (l *login) secrets() []string { return l.known.all() }

func (l *login) get(ctx context.Context) (grant, error) {
	access, err := given(l.keys.AccessKey, l.keys.AccessKeyFile)
	if err != nil {
		return grant{}, fmt.Errorf("read the access key: %w", err)
	}
	secret, err := given(l.keys.SecretKey, l.keys.SecretKeyFile)
	if err != nil {
		return grant{}, fmt.Errorf("read the secret key: %w", err)
	}
	l.known.add(access, secret)
	body, err := json.Marshal(map[string]string{"accessKey": access, "secretKey": secret})
	if err != nil {
		return grant{}, err
	}
	r := request{method: http.MethodPost, url: l.url, body: body, header: http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json"},
	}}
	a, err := l.calls.do(ctx, r)
	if err != nil {
		return grant{}, err
	}
	if a.status != http.StatusOK {
		return grant{}, l.calls.refuse(r, a, http.StatusOK)
	}
	g, err := parseGrant(a.body)
	if err != nil {
		return grant{}, fmt.Errorf("POST %s: %w", where(l.url), err)
	}
	l.known.add(g.token)
	return g, nil
}

func given(value, file string) (string, error) {
	if value != "" {
		return value, nil
	}
	return readSecret(file)
}

// grant is what a login gives.
type grant struct {
	token    string
	lifetime time.Duration // 0 is not known
}

// parseGrant reads the answer to a login. What a service adds to it is its own
// affair. The errors show nothing of it.
func parseGrant(body []byte) (grant, error) {
	var in struct {
		Token     string          `json:"access_token"`
		ExpiresIn json.RawMessage `json:"expires_in"` // seconds, a number or a string
		Type      string          `json:"token_type"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return grant{}, errors.New("the answer is not the JSON of a login")
	}
	if !printable(in.Token) {
		return grant{}, errors.New("the answer has no access_token that can be sent")
	}
	if !strings.EqualFold(cmp.Or(in.Type, "Bearer"), "Bearer") {
		return grant{}, errors.New("the answer has a token_type other than Bearer")
	}
	g := grant{token: in.Token}
	var seconds float64
	if raw := strings.Trim(string(in.ExpiresIn), `"`); raw != "" && raw != "null" {
		if err := json.Unmarshal([]byte(raw), &seconds); err != nil || seconds < 0 {
			return grant{}, errors.New("the answer has an expires_in that is not a number of seconds")
		}
	}
	g.lifetime = time.Duration(math.Min(seconds, 1e9) * float64(time.Second)) // some 30 years
	return g, nil
}
