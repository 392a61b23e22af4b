package receiver

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
)

// login changes access keys for a token.
func (r *Receiver) login(q *http.Request) (answer, error) {
	if r.o.AccessKey == "" {
		return answer{}, refuse(http.StatusNotFound, "there is no login: the receiver was started without access keys")
	}
	if q.Header.Get("Content-Encoding") != "" {
		return answer{}, refuse(http.StatusUnsupportedMediaType, "the body of a login is not compressed")
	}
	raw, err := r.body(q)
	if err != nil {
		return answer{}, err
	}
	var in struct {
		AccessKey string `json:"accessKey"`
		SecretKey string `json:"secretKey"`
	}
	if err := decode(raw, &in); err != nil {
		return answer{}, err
	}
	if in.AccessKey != r.o.AccessKey || in.SecretKey != r.o.SecretKey {
		return answer{}, refuse(http.StatusUnauthorized, "the access key or the secret key is wrong")
	}
	token := rand.Text()
	r.mu.Lock()
	r.tokens[token] = r.o.Now().Add(r.o.Lifetime)
	r.kept.Logins++
	r.mu.Unlock()
	out, err := json.Marshal(map[string]any{
		"access_token": token, "expires_in": int(r.o.Lifetime.Seconds()), "token_type": "Bearer",
	})
	return answer{status: http.StatusOK, body: string(out)}, err
}

// Revoke makes the tokens that were given no longer good.
func (r *Receiver) Revoke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}

// authorize wants the header that the options ask for, and no other.
func (r *Receiver) authorize(q *http.Request) error {
	if r.o.Token == "" && r.o.AccessKey == "" {
		return nil
	}
	token, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return refuse(http.StatusUnauthorized, "the header Authorization with a Bearer token is missing")
	}
	if r.o.Token != "" {
		if token != r.o.Token {
			return refuse(http.StatusUnauthorized, "the token is wrong")
		}
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	until, known := r.tokens[token]
	switch {
	case !known:
		return refuse(http.StatusUnauthorized, "the token is not one that a login gave")
	case !r.o.Now().Before(until):
		return refuse(http.StatusUnauthorized, "the token has expired")
	}
	return nil
}
