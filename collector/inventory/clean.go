package inventory

import (
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// maskedSecret is what stands where a credential was in a foreign text.
const maskedSecret = "***"

// maxShown is how much of a foreign text goes into an error, in bytes.
const maxShown = 256

// What a credential looks like that we do not know: a foreign text may hold
// those of others.
var (
	credentialPair = regexp.MustCompile(`(?i)((?:pass(?:word|wd)?|secret|token|credential|authorization|(?:access|api|secret|private)[_-]?key)\w*\\?["']?\s*[:=]\s*\\?["']?)(?:(?:bearer|basic)\s+)?[^\s"'\\,;&}<]+`)
	credentialAuth = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9+/_.~=-]{6,}`)
	credentialURL  = regexp.MustCompile(`://[^/@\s]+@`)
	credentialJWT  = regexp.MustCompile(`\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?`)
)

// cleanText makes a foreign text fit for an error or a log: one line, without
// the secrets and what else looks like a credential, shortened.
func cleanText(text string, secrets []string) string {
	text = maskSecrets(text, secrets)
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	text = maskSecrets(strings.Join(strings.Fields(text), " "), secrets)
	text = credentialURL.ReplaceAllString(text, "://"+maskedSecret+"@")
	text = credentialPair.ReplaceAllString(text, "${1}"+maskedSecret)
	text = credentialAuth.ReplaceAllString(text, "${1} "+maskedSecret)
	text = credentialJWT.ReplaceAllString(text, maskedSecret)
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "..."
	}
	return text
}

// maskSecrets masks the secrets, as they are and as JSON and URLs write them.
func maskSecrets(text string, secrets []string) string {
	var forms []string
	for _, s := range secrets {
		if s == "" {
			continue
		}
		quoted, _ := json.Marshal(s) // of a string it cannot fail
		forms = append(forms, s, strings.Trim(string(quoted), `"`), url.QueryEscape(s), url.PathEscape(s))
	}
	// The longest first: one may be a part of another.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	for _, f := range forms {
		text = strings.ReplaceAll(text, f, maskedSecret)
	}
	return text
}

// cleanBody is cleanText of the beginning of an answer's body. Of a body that was
// cut, the end goes: it may be the beginning of a secret.
func cleanBody(body []byte, cut bool, secrets []string) string {
	if cut {
		longest := 0
		for _, s := range secrets {
			longest = max(longest, 3*len(s)) // as a URL writes it
		}
		body = body[:max(0, len(body)-longest)]
	}
	return cleanText(string(body), secrets)
}

// cleanedError says what an error says, cleaned; errors.Is and As see through it.
type cleanedError struct {
	text string
	err  error
}

func (e *cleanedError) Error() string { return e.text }
func (e *cleanedError) Unwrap() error { return e.err }

// cleanError cleans the text of an error. It leaves the URL of the request out,
// which may have credentials in its query.
func cleanError(err error, secrets []string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if _, done := errors.AsType[*cleanedError](err); !done {
		if u, ok := errors.AsType[*url.Error](err); ok && u.Err != nil {
			text = u.Err.Error()
		}
	}
	return &cleanedError{text: cleanText(text, secrets), err: err}
}
