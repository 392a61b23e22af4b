package config

import (
	"regexp"
	"time"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/strict"
)

var clusterID = regexp.MustCompile(`^[a-z0-9-_]+$`)

// minMaxAge keeps a mistyped unit (6s for 6h) from ending every stream again
// and again.
const minMaxAge = strict.Duration(time.Minute)

// validate reports everything that is wrong, not only the first.
func (c *Config) validate() error {
	var p strict.Problems
	c.validateFile(&p)
	p.Address("health.address", c.Health.Address)
	p.Address("metrics.address", c.Metrics.Address)
	if !c.Stream.Enabled && !c.Inventory.Enabled {
		p.Add("stream.enabled", false, "true, or inventory.enabled: true: else there is nothing to do")
	}
	if c.Stream.Enabled {
		c.Stream.validate(&p)
	}
	if _, err := c.Report.NamespaceSelector.Selector(); err != nil {
		p.Add("report.namespaceSelector", err, "matchLabels and matchExpressions {key, operator, values} with an operator In, NotIn, Exists or DoesNotExist")
	}
	if c.Inventory.Enabled {
		c.validateInventory(&p, true)
		if c.Inventory.State.Namespace == "" { // a single run does without
			p.Add("inventory.state.namespace", "", "the namespace of the Lease that says which replica sends")
		}
	}
	return p.Err()
}

func (c *Config) validateFile(p *strict.Problems) {
	p.OneOf("apiVersion", c.APIVersion, APIVersion)
	p.OneOf("kind", c.Kind, Kind)
}

// validateInventory lets a run that sends nothing do without what only an
// endpoint needs; what is there is checked anyway.
func (c *Config) validateInventory(p *strict.Problems, sends bool) {
	if (sends || c.ClusterID != "") && !clusterID.MatchString(c.ClusterID) {
		p.Add("clusterID", c.ClusterID, "lower-case letters, digits, - and _, at least one: it is required when the inventory is enabled")
	}
	if i := c.Inventory; sends || i.Endpoint != "" {
		checkURL(p, "inventory.endpoint", i.Endpoint, i.Insecure)
	}
	c.Inventory.validate(p)
}

func (s *Stream) validate(p *strict.Problems) {
	p.Address("stream.address", s.Address)
	s.TLS.Validate(p, "stream.tls", certs.ModeSelfManaged, certs.ModeFiles, certs.ModeDisabled)
	p.OneOf("stream.authorization", s.Authorization, AuthorizationEnforce, AuthorizationAudit, AuthorizationDisabled)
	if t := s.Tickets.Secret; (t.Namespace == "") != (t.Name == "") {
		p.Add("stream.tickets.secret", t.Namespace+"/"+t.Name, "a namespace and a name, or neither")
	}
	if s.Plaintext.Address != "" {
		p.Address("stream.plaintext.address", s.Plaintext.Address)
		if s.TLS.Mode == certs.ModeDisabled {
			p.Add("stream.plaintext.address", s.Plaintext.Address, "empty when stream.tls.mode is disabled: stream.address is plaintext then")
		}
	}
	if s.Pacing.Burst < 1 {
		p.Add("stream.pacing.burst", s.Pacing.Burst, "a whole number of events, at least 1")
	}
	if !(s.Pacing.Rate > 0) { // so NaN is refused too
		p.Add("stream.pacing.rate", s.Pacing.Rate, "events per second, more than 0")
	}
	if s.MaxAge != 0 && s.MaxAge < minMaxAge {
		p.Add("stream.maxAge", s.MaxAge, "0 (never), or a duration with its unit of at least 1m, such as 6h")
	}
}
