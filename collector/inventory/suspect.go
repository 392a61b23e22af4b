package inventory

import (
	"math"
	"regexp"
	"strings"
)

// masked stands for what looks like a credential.
const masked = "***"

// suspectName matches what people call credentials: in keys, variables, flags.
var suspectName = regexp.MustCompile(`(?i)(passw(or)?d|passphrase|secret|token|api[-_.]?key|access[-_.]?key|private[-_.]?key|encryption[-_.]?key|signing[-_.]?key|credential|(^|[-_.])auth([-_.]|$)|authorization|\bdsn\b|connection[-_.]?string|bearer|cookie|\bpat\b|(^|[-_.])pwd([-_.]|$)|(^|[-_.])pass([-_.]|$))`)

// Texts that are credentials, wherever they stand.
var (
	privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)
	webToken   = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?`)
	cloudKey   = regexp.MustCompile(`\b((AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk_(live|test)_[A-Za-z0-9]{10,}|AIza[A-Za-z0-9_-]{30,})`)
	userinfo   = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@"']*:[^/\s"']*@`)
)

// certain masks what is a credential by its own form.
func certain(s string) string {
	if len(s) < 8 {
		return s
	}
	if strings.Contains(s, "PRIVATE KEY-----") {
		s = privateKey.ReplaceAllString(s, masked)
	}
	if strings.Contains(s, "eyJ") {
		s = webToken.ReplaceAllString(s, masked)
	}
	s = cloudKey.ReplaceAllString(s, masked)
	if strings.Contains(s, "://") {
		s = userinfo.ReplaceAllString(s, "${1}"+masked+"@")
	}
	return s
}

// assignment is name=value, name: value or "name": "value" in a text, a value
// that is quoted up to its quote, another up to the end of the line or a
// separator.
var assignment = regexp.MustCompile(`([A-Za-z0-9_.-]{2,64})(["']?\s*[:=]\s*)("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,;&"']+(?:[ \t]+[^\s,;&"'=:]+)*)`)

// flagged is --name value in one text.
var flagged = regexp.MustCompile(`(--?[A-Za-z0-9][A-Za-z0-9_.-]*)(\s+)("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s"'-][^\s"']*)`)

// word is what may be a random text.
var word = regexp.MustCompile(`[A-Za-z0-9+/_=-]{20,}`)

// likely masks what looks like a credential: the whole text if its key says so,
// else the parts of it that do.
func likely(key, s string) string {
	if s == "" {
		return s
	}
	if suspectName.MatchString(key) {
		return masked
	}
	s = certain(s)
	s = assignment.ReplaceAllStringFunc(s, func(m string) string {
		p := assignment.FindStringSubmatch(m)
		if !suspectName.MatchString(p[1]) {
			return m
		}
		return p[1] + p[2] + masked
	})
	s = flagged.ReplaceAllStringFunc(s, func(m string) string {
		p := flagged.FindStringSubmatch(m)
		if !suspectName.MatchString(p[1]) {
			return m
		}
		return p[1] + p[2] + masked
	})
	return word.ReplaceAllStringFunc(s, func(w string) string {
		if random(w) {
			return masked
		}
		return w
	})
}

// randomBits is the least entropy of a character, in bits, that no text in
// hexadecimal has (4 at most), and hardly a name.
const randomBits = 4.2

// random reports whether a word looks like chosen by chance: letters of both
// cases and digits, evenly spread. Digests in hexadecimal do not.
func random(w string) bool {
	var count [128]int
	upper, lower, digit := false, false, false
	for i := range len(w) {
		c := w[i]
		count[c&127]++
		upper = upper || c >= 'A' && c <= 'Z'
		lower = lower || c >= 'a' && c <= 'z'
		digit = digit || c >= '0' && c <= '9'
	}
	if !upper || !lower || !digit {
		return false
	}
	bits := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(w))
			bits -= p * math.Log2(p)
		}
	}
	return bits > randomBits || len(w) < 28 && bits > 3.8
}
