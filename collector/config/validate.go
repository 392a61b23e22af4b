package config

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var clusterID = regexp.MustCompile(`^[a-z0-9-_]+$`)

// minMaxAge keeps a mistyped unit (6s for 6h) from ending every stream again
// and again.
const minMaxAge = Duration(time.Minute)

// validate reports everything that is wrong, not only the first.
func (c *Config) validate() error {
	var p problems
	p.oneOf("apiVersion", c.APIVersion, APIVersion)
	p.oneOf("kind", c.Kind, Kind)
	p.address("health.address", c.Health.Address)
	p.address("metrics.address", c.Metrics.Address)
	if !c.Stream.Enabled && !c.Inventory.Enabled {
		p.add("stream.enabled", false, "true, or inventory.enabled: true: else there is nothing to do")
	}
	if c.Stream.Enabled {
		c.Stream.validate(&p)
	}
	if c.Inventory.Enabled {
		p.oneOf("inventory.contract", c.Inventory.Contract, ContractObjects, ContractRuns)
		if !clusterID.MatchString(c.ClusterID) {
			p.add("clusterID", c.ClusterID, "lower-case letters, digits, - and _, at least one: it is required when the inventory is enabled")
		}
		if len(c.Inventory.Resources) == 0 {
			p.add("inventory.resources", "[]", "at least one resource type, such as pods or deployments.apps")
		}
	}
	return errors.Join(p...)
}

func (s *Stream) validate(p *problems) {
	p.address("stream.address", s.Address)
	switch s.TLS.Mode {
	case TLSDisabled:
	case TLSFiles:
		if s.TLS.CertFile == "" || s.TLS.KeyFile == "" {
			p.add("stream.tls.mode", TLSFiles, "files only together with stream.tls.certFile and stream.tls.keyFile")
		}
	case TLSSelfManaged:
		p.notYet("stream.tls.mode", TLSSelfManaged, "files or disabled")
	default:
		p.oneOf("stream.tls.mode", s.TLS.Mode, TLSFiles, TLSDisabled)
	}
	switch s.Authorization {
	case AuthorizationDisabled:
	case AuthorizationEnforce, AuthorizationAudit:
		p.notYet("stream.authorization", s.Authorization, "disabled")
	default:
		p.oneOf("stream.authorization", s.Authorization, AuthorizationDisabled)
	}
	if s.Plaintext.Address != "" {
		p.notYet("stream.plaintext.address", s.Plaintext.Address, "empty")
	}
	if s.Pacing.Burst < 1 {
		p.add("stream.pacing.burst", s.Pacing.Burst, "a whole number of events, at least 1")
	}
	if !(s.Pacing.Rate > 0) { // so NaN is refused too
		p.add("stream.pacing.rate", s.Pacing.Rate, "events per second, more than 0")
	}
	if s.MaxAge != 0 && s.MaxAge < minMaxAge {
		p.add("stream.maxAge", s.MaxAge, "0 (never), or a duration with its unit of at least 1m, such as 6h")
	}
}

// problems collects what is wrong with a configuration.
type problems []error

func (p *problems) add(key string, value any, allowed string) {
	*p = append(*p, fmt.Errorf("%s: %v is not allowed: must be %s", key, printable(value), allowed))
}

func (p *problems) notYet(key, value, allowed string) {
	*p = append(*p, fmt.Errorf("%s: %q is not yet supported by this version: must be %s", key, value, allowed))
}

func (p *problems) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(key, value, `"`+strings.Join(allowed, `" or "`)+`"`)
	}
}

func (p *problems) address(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		p.add(key, value, `host:port, such as ":8081"`)
	}
}

func printable(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}
