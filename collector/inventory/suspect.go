package inventory

import (
	"math"
	"regexp"
	"strings"
)

// masked stands for what looks like a credential.
const masked = "***"

// What people call credentials, in keys, variables and flags, and what they call
// that which only says where one is, or how it is made.
var (
	suspectName = regexp.MustCompile(`(?i:passw|passphrase|passcode|secret|token|credential|authorization|connection[-_. ]?str` +
		`|(api|access|private|encrypt(ion)?|sign(ing)?|master|shared|account|storage|license|ssh|hmac|session)[-_. ]?key` +
		`|(^|[^a-z])(auth|dsn|pwd|pass|pat|creds?|jwt|bearer|cookie|sas)([^a-z]|$)|(pass|pwd)$)` +
		`|[a-z0-9](Auth|Dsn|DSN|Pwd|Pass|Creds?|Jwt|JWT|Cookie)([^a-z]|$)`)
	describing = regexp.MustCompile(`(?i:(^|[-_./])(file|path|dir|names?|namespace|ref|type|mode|ttl|timeout|enabled|seconds|kind|url)$)` +
		`|[a-z](File|Path|Dir|Names?|Namespace|Ref|Type|Mode|TTL|Timeout|Enabled|Seconds|Kind|URL|Url)$`)
	// A map under such a key has credentials under the names of their owners.
	holdsCredentials = regexp.MustCompile(`(?i)(passwords?|secrets?|tokens?|credentials?)$`)
	keystore         = regexp.MustCompile(`(?i)\.(p12|pfx|jks|keystore|kdbx)$`)
)

// hints are in every suspect name: most names have none, and to see that takes a
// tenth of the time.
func hints() [13]string {
	return [...]string{"pass", "secret", "token", "cred", "auth", "key", "pwd", "dsn", "connection", "pat", "jwt", "cookie", "bearer"}
}

// suspect reports whether what is called so is a credential.
func suspect(name string) bool {
	lower := strings.ToLower(name)
	for _, hint := range hints() {
		if strings.Contains(lower, hint) {
			return suspectName.MatchString(name) && !describes(name)
		}
	}
	return strings.Contains(lower, "sas") && suspectName.MatchString(name) && !describes(name)
}

// describes reports whether what is called so tells of a credential, and is none.
func describes(name string) bool { return name == "key" || describing.MatchString(name) }

// Texts that are credentials, wherever they stand.
var (
	privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|$)`)
	webToken   = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*`)
	cloudKey   = regexp.MustCompile(`\b((AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|[sr]k_(live|test)_[A-Za-z0-9]{10,}|AIza[A-Za-z0-9_-]{30,}|npm_[A-Za-z0-9]{30,}|hv[sb]\.[A-Za-z0-9_-]{20,}|dckr_pat_[A-Za-z0-9_-]{20,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})`)
	// A password may hold a slash, if it does not look like a port before a path.
	userinfo = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@:"']*:([^/\s"']*|[0-9]*[^0-9/\s"'][^\s"']*)@`)
	inQuery  = regexp.MustCompile(`(?i)([?&][a-z0-9_-]*(token|secret|passw(or)?d|api[-_]?key|signature|sig)=)[^&\s"'#]+`)
	hooks    = regexp.MustCompile(`(https://(hooks\.slack\.com/services|discord(app)?\.com/api/webhooks)/)[^\s"']+`)
)

// cloudKeys are how those begin.
func cloudKeys() [14]string {
	return [...]string{"AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "glpat-", "xox", "k_", "AIza", "npm_", "."}
}

// certain masks what is a credential by its own form.
func certain(s string) string {
	if len(s) < 8 {
		return s
	}
	if strings.Contains(s, "PRIVATE KEY") {
		s = privateKey.ReplaceAllString(s, masked)
	}
	if strings.Contains(s, "eyJ") {
		s = webToken.ReplaceAllString(s, masked)
	}
	if len(s) >= 15 {
		for _, begin := range cloudKeys() {
			if strings.Contains(s, begin) {
				s = cloudKey.ReplaceAllString(s, masked)
				break
			}
		}
	}
	if strings.Contains(s, "://") {
		s = userinfo.ReplaceAllString(s, "${1}"+masked+"@")
		s = inQuery.ReplaceAllString(s, "${1}"+masked)
		s = hooks.ReplaceAllString(s, "${1}"+masked)
	}
	return s
}

// Credentials by what stands before them in a text, and what is public in it.
var (
	before   = regexp.MustCompile(`(?i)(\bbearer\s+|\blogin\s+\S+\s+password\s+|\b(?:identified\s+by|password)\s+["'])[^\s"']{3,}`)
	curlUser = regexp.MustCompile(`((?:^|\s)(?:-u\s*|--user[\s=])["']?)[^\s"':]+:[^\s"']+`) // of curl
	hashed   = regexp.MustCompile(`\$(apr1|2[abxy]|5|6|y|argon2\w*)\$[^\s"':]+`)
	// flagged is --name value in one text.
	flagged = regexp.MustCompile(`(--?[A-Za-z0-9][A-Za-z0-9_.-]*)(\s+)("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\S+)`)
	element = regexp.MustCompile(`(<([A-Za-z0-9:_.-]+)(?:\s[^<>]*)?>)([^<]+)`)
	// word is what may be a random text.
	word   = regexp.MustCompile(`[A-Za-z0-9+/_=-]{20,}`) // minWord
	public = regexp.MustCompile(`(?s)-----BEGIN ([A-Z ]*CERTIFICATE|[A-Z ]*PUBLIC KEY|X509 CRL)-----[A-Za-z0-9+/=\s]*-----END ([A-Z ]*CERTIFICATE|[A-Z ]*PUBLIC KEY|X509 CRL)-----`)
)

// likely masks what looks like a credential: the whole text if its key says so,
// else the parts of it that do.
func likely(key, s string) string {
	if s == "" {
		return s
	}
	if suspect(key) {
		return masked
	}
	var b strings.Builder
	last := 0
	for _, at := range public.FindAllStringIndex(s, -1) {
		b.WriteString(parts(s[last:at[0]]))
		b.WriteString(s[at[0]:at[1]])
		last = at[1]
	}
	b.WriteString(parts(s[last:]))
	return b.String()
}

// parts masks the parts of a text that look like credentials.
func parts(s string) string {
	s = certain(s)
	if strings.ContainsAny(s, " \t\n") { // more than a word
		s = before.ReplaceAllString(s, "${1}"+masked)
		s = called(flagged, 1, s)
	}
	if strings.Contains(s, "-u") {
		s = curlUser.ReplaceAllString(s, "${1}"+masked)
	}
	if strings.Contains(s, "$") {
		s = hashed.ReplaceAllString(s, masked)
	}
	if strings.ContainsAny(s, ":=") {
		s = assignments(s)
	}
	if strings.Contains(s, "<") {
		s = called(element, 2, s)
	}
	if len(s) < minWord {
		return s
	}
	return word.ReplaceAllStringFunc(s, func(w string) string {
		if random(w) {
			return masked
		}
		return w
	})
}

// called masks the last group of every match whose name is suspect.
func called(what *regexp.Regexp, name int, s string) string {
	return what.ReplaceAllStringFunc(s, func(m string) string {
		p := what.FindStringSubmatchIndex(m)
		if !suspect(m[p[2*name]:p[2*name+1]]) {
			return m
		}
		return m[:p[len(p)-2]] + masked
	})
}

// option is what follows an option that needs no value, or is another's.
var option = regexp.MustCompile(`^(-[A-Za-z0-9]|--[a-z][A-Za-z0-9.-]*(=.*)?)$`)

// arguments masks what looks like a credential, and what follows a flag that is
// called so.
func arguments(list []any) {
	flag := ""
	for i, a := range list {
		s, ok := a.(string)
		if !ok {
			continue
		}
		name, _, joined := strings.Cut(s, "=")
		switch user := flag == "-u" || flag == "--user"; {
		case suspect(flag) && !option.MatchString(s), user && strings.Contains(s, ":"):
			list[i], flag = masked, ""
		case strings.HasPrefix(s, "-") && joined && suspect(name):
			list[i], flag = name+"="+masked, ""
		case strings.HasPrefix(s, "-") && !strings.ContainsAny(s, "= \n"):
			flag = s
			list[i] = certain(s)
		default:
			list[i], flag = likely("", s), ""
		}
	}
}

// minWord is the length of the shortest word that may be random.
const minWord = 20

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
