package config

import (
	"regexp"
	"time"

	"github.com/metawire/metawire/internal/strict"
)

var clusterID = regexp.MustCompile(`^[a-z0-9-_]+$`)

// minMaxAge keeps a mistyped unit (6s for 6h) from ending every stream again
// and again.
const minMaxAge = strict.Duration(time.Minute)

// validate reports everything that is wrong, not only the first.
func (c *Config) validate() error {
	var p strict.Problems
	p.OneOf("apiVersion", c.APIVersion, APIVersion)
	p.OneOf("kind", c.Kind, Kind)
	p.Address("health.address", c.Health.Address)
	p.Address("metrics.address", c.Metrics.Address)
	if !c.Stream.Enabled && !c.Inventory.Enabled {
		p.Add("stream.enabled", false, "true, or inventory.enabled: true: else there is nothing to do")
	}
	if c.Stream.Enabled {
		c.Stream.validate(&p)
	}
	if c.Inventory.Enabled {
		p.OneOf("inventory.contract", c.Inventory.Contract, ContractObjects, ContractRuns)
		if !clusterID.MatchString(c.ClusterID) {
			p.Add("clusterID", c.ClusterID, "lower-case letters, digits, - and _, at least one: it is required when the inventory is enabled")
		}
		if len(c.Inventory.Resources) == 0 {
			p.Add("inventory.resources", "[]", "at least one resource type, such as pods or deployments.apps")
		}
	}
	return p.Err()
}

func (s *Stream) validate(p *strict.Problems) {
	p.Address("stream.address", s.Address)
	switch s.TLS.Mode {
	case TLSDisabled:
	case TLSFiles:
		if s.TLS.CertFile == "" || s.TLS.KeyFile == "" {
			p.Add("stream.tls.mode", TLSFiles, "files only together with stream.tls.certFile and stream.tls.keyFile")
		}
	case TLSSelfManaged:
		p.NotYet("stream.tls.mode", TLSSelfManaged, "files or disabled")
	default:
		p.OneOf("stream.tls.mode", s.TLS.Mode, TLSFiles, TLSDisabled)
	}
	switch s.Authorization {
	case AuthorizationDisabled:
	case AuthorizationEnforce, AuthorizationAudit:
		p.NotYet("stream.authorization", s.Authorization, "disabled")
	default:
		p.OneOf("stream.authorization", s.Authorization, AuthorizationDisabled)
	}
	if s.Plaintext.Address != "" {
		p.NotYet("stream.plaintext.address", s.Plaintext.Address, "empty")
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
