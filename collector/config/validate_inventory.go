package config

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/metawire/metawire/internal/strict"
)

var resourceType = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// customGroup is as a CustomResourceDefinition must name its own: with a dot.
var customGroup = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)

// validate adds to the problems what is wrong but for the endpoint; a run by hand,
// which keeps no state, passes the same checks.
func (i *Inventory) validate(p *strict.Problems) {
	p.OneOf("inventory.contract", i.Contract, ContractObjects, ContractRuns)
	if _, err := cron.ParseStandard(i.Schedule); err != nil || strings.Contains(i.Schedule, "TZ=") {
		p.Add("inventory.schedule", i.Schedule, `cron's five fields, such as "*/15 * * * *", or @hourly, @every 30m and the like; the time zone is inventory.timeZone`)
	}
	// "Local" is whatever the machine has, and "" is UTC to Go alone.
	if _, err := time.LoadLocation(i.TimeZone); err != nil || i.TimeZone == "" || i.TimeZone == "Local" {
		p.Add("inventory.timeZone", i.TimeZone, "a name of the IANA time zone database, such as UTC or Europe/Berlin")
	}
	if i.Jitter < 0 {
		p.Add("inventory.jitter", i.Jitter, "0, or a duration with its unit, such as 1m")
	}
	if len(i.Resources) == 0 && !i.CustomResources {
		p.Add("inventory.resources", "[]", "at least one resource type, such as pods or deployments.apps")
	}
	for _, r := range i.Resources {
		if !resourceType.MatchString(r) {
			p.Add("inventory.resources", r, "resource.group as kubectl writes it, such as pods or deployments.apps")
		}
	}
	i.validateGroups(p)
	if i.HelmReleases && !slices.Contains(i.Resources, "secrets") {
		p.Add("inventory.helmReleases", true, "false unless inventory.resources has secrets, which Helm releases are in")
	}
	i.validatePages(p)
	p.OneOf("inventory.redaction.mode", i.Redaction.Mode, RedactionOn, RedactionNone)
	ref := i.Redaction.Secret
	if (ref.Namespace == "") != (ref.Name == "") {
		p.Add("inventory.redaction.secret", ref.Namespace+"/"+ref.Name, "a namespace and a name, or neither")
	}
	if ref.Name != "" && i.Redaction.KeyFile != "" {
		p.Add("inventory.redaction.keyFile", i.Redaction.KeyFile, "empty when inventory.redaction.secret is set")
	}
	i.Credentials.validate(p)
	switch {
	case i.LoginEndpoint != "" && i.Credentials.Mode != CredentialsAccessKeys:
		p.Add("inventory.loginEndpoint", redacted(i.LoginEndpoint), "empty unless inventory.credentials.mode is "+CredentialsAccessKeys)
	case i.LoginEndpoint != "":
		checkURL(p, "inventory.loginEndpoint", i.LoginEndpoint, i.Insecure)
	}
	i.validateState(p)
}

func (i *Inventory) validateGroups(p *strict.Problems) {
	if len(i.CustomResourceGroups) > 0 && !i.CustomResources {
		p.Add("inventory.customResourceGroups", i.CustomResourceGroups, "empty unless inventory.customResources is true")
	}
	for _, g := range i.CustomResourceGroups {
		if !customGroup.MatchString(g) {
			p.Add("inventory.customResourceGroups", g, "an API group of CustomResourceDefinitions, such as cert-manager.io")
		}
	}
}

func (i *Inventory) validatePages(p *strict.Problems) {
	if i.PageBytes < 1 {
		p.Add("inventory.pageBytes", i.PageBytes, "a number of bytes, at least 1")
	}
	if i.MaxObjectBytes < i.PageBytes {
		p.Add("inventory.maxObjectBytes", i.MaxObjectBytes, "a number of bytes, at least inventory.pageBytes")
	}
	p.OneOf("inventory.compression", i.Compression, CompressionGzip, CompressionNone)
	if i.Spool.Directory != "" && i.Spool.MaxBytes < i.MaxObjectBytes {
		p.Add("inventory.spool.maxBytes", i.Spool.MaxBytes, "a number of bytes, at least inventory.maxObjectBytes")
	}
	// There a closed run that lacks an object deletes it.
	if i.Changes && i.Contract == ContractRuns {
		p.Add("inventory.changes", true, `false with inventory.contract "runs", whose runs are always complete`)
	}
	if i.CompleteEvery < 1 {
		p.Add("inventory.completeEvery", i.CompleteEvery, "a number of runs, at least 1")
	}
	if i.OverrideUniqueClusterID && i.Contract != ContractRuns {
		p.Add("inventory.overrideUniqueClusterId", true, `false unless inventory.contract is "runs"`)
	}
}

// validateState: a name that is missing would be found at the first run only.
func (i *Inventory) validateState(p *strict.Problems) {
	s := i.State
	if s.Namespace == "" {
		if s.Lease+s.Report+s.Index != "" {
			p.Add("inventory.state.namespace", "", "the namespace of the Lease and the ConfigMaps that are named")
		}
		return
	}
	for key, name := range map[string]string{"lease": s.Lease, "report": s.Report} {
		if name == "" {
			p.Add("inventory.state."+key, name, "a name: it is required with inventory.state.namespace")
		}
	}
	if i.Changes && s.Index == "" {
		p.Add("inventory.state.index", "", "the beginning of the index's names: it is required with inventory.changes")
	}
}

func (c *Credentials) validate(p *strict.Problems) {
	const key = "inventory.credentials."
	p.OneOf(key+"mode", c.Mode, CredentialsNone, CredentialsBearer, CredentialsAccessKeys)
	for _, f := range []struct{ field, value, mode string }{
		{"tokenFile", c.TokenFile, CredentialsBearer},
		{"accessKeyFile", c.AccessKeyFile, CredentialsAccessKeys},
		{"secretKeyFile", c.SecretKeyFile, CredentialsAccessKeys},
	} {
		switch {
		case f.mode == c.Mode && f.value == "" && c.SecretKey == "":
			p.Add(key+f.field, f.value, "a file: it is required with mode "+c.Mode)
		case f.mode != c.Mode && f.value != "":
			p.Add(key+f.field, f.value, "empty unless "+key+"mode is "+f.mode)
		}
	}
}

// checkURL refuses what would send objects or credentials in the clear, unless
// that is wanted. It never repeats a password.
func checkURL(p *strict.Problems, key, value string, insecure bool) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		p.Add(key, redacted(value), "a URL, such as https://inventory.example/ingest")
	case u.User != nil || u.Fragment != "" || u.RawQuery != "":
		p.Add(key, redacted(value), "a URL without user, query and fragment: credentials are inventory.credentials")
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		p.Add(key, value, "an https URL: with http everybody on the way reads what is sent, which inventory.insecure: true accepts")
	}
}

var userinfo = regexp.MustCompile(`//[^/]*@`)

func redacted(rawURL string) string {
	before, _, _ := strings.Cut(userinfo.ReplaceAllString(rawURL, "//...@"), "?")
	return before
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
