// Package certs is the one way certificates come, for the webhook and the
// stream alike: from an authority of the daemons' own, or from files. It tells
// which authorities clients should trust.
package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/internal/strict"
)

// Where certificates come from.
const (
	ModeSelfManaged = "selfManaged" // an authority of our own, kept in a Secret
	ModeFiles       = "files"       // PEM files, read again when they change
	ModeDisabled    = "disabled"    // plaintext
)

// SecretRef names a Secret.
type SecretRef struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
}

// Settings say where a daemon's certificate comes from, as configuration files
// write it.
type Settings struct {
	Mode string `yaml:"mode"`
	// For selfManaged: the Secret that all daemons share, and the names in the
	// certificate.
	Secret   SecretRef `yaml:"secret"`
	DNSNames []string  `yaml:"dnsNames"`
	// For files: certificate with key, and the authorities that clients are to
	// trust.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	CAFile   string `yaml:"caFile"`
	// Overlap and LeafDuration are those of Options, for tests that run whole
	// daemons; files do not have them.
	Overlap      time.Duration `yaml:"-"`
	LeafDuration time.Duration `yaml:"-"`
}

// Validate adds to the problems what is wrong with the settings at the key;
// modes are those that are allowed.
func (s Settings) Validate(p *strict.Problems, key string, modes ...string) {
	p.OneOf(key+".mode", s.Mode, modes...)
	required := func(field, value, what string) {
		if value == "" {
			p.Add(key+"."+field, value, what+": it is required with mode "+s.Mode)
		}
	}
	switch s.Mode {
	case ModeSelfManaged:
		required("secret.namespace", s.Secret.Namespace, "the namespace of the authority's Secret")
		required("secret.name", s.Secret.Name, "the name of the authority's Secret")
		if len(s.DNSNames) == 0 {
			p.Add(key+".dnsNames", "[]", "the DNS names of the Service, at least one")
		}
	case ModeFiles:
		required("certFile", s.CertFile, "a PEM file")
		required("keyFile", s.KeyFile, "a PEM file")
	}
}

// Readable reports which file, of those that the settings name, cannot be used
// now.
func (s Settings) Readable() error {
	if s.Mode != ModeFiles {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile); err != nil {
		return fmt.Errorf("certificate and key: %w", err)
	}
	if s.CAFile != "" {
		if _, err := os.ReadFile(s.CAFile); err != nil {
			return fmt.Errorf("authorities: %w", err)
		}
	}
	return nil
}

// Options are what is right without being set, outside of tests.
type Options struct {
	// Trusted reports whether every running pod that was wired trusts the
	// authority with that fingerprint. Without it this daemon begins a change of
	// the authority, and leaves its completion to another.
	Trusted func(fingerprint string) bool
	// Overlap is how long two authorities are published together at least before
	// the new one signs, and again before the old one is dropped; default 1m:
	// longer than the Secret takes to reach every daemon.
	Overlap time.Duration
	// CADuration and LeafDuration are how long certificates are good for,
	// default 10 years and 7 days, and at least a few seconds. Both are renewed
	// after two thirds.
	CADuration, LeafDuration time.Duration
	// Reread is how often files are read again though nobody said that they
	// changed, default 5s.
	Reread time.Duration
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Overlap, time.Minute)
	def(&o.CADuration, 10*365*24*time.Hour)
	def(&o.LeafDuration, 7*24*time.Hour)
	def(&o.Reread, 5*time.Second)
	return o
}

// source gives certificates.
type source interface {
	// start blocks until ctx ends; it calls published with every new bundle.
	start(ctx context.Context, published func([]byte)) error
	certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Certs gives a server its certificate and tells what its clients should trust.
// Its methods may be called from any goroutine.
type Certs struct {
	source source
	log    *slog.Logger
	ready  chan struct{}

	mu     sync.Mutex
	bundle []byte
	tell   []func([]byte)
}

// New returns the certificates that the settings ask for, which must not be
// ModeDisabled. It reads the files, if any; it does not contact the API server.
func New(s Settings, api kubernetes.Interface, log *slog.Logger, m *Metrics, o Options) (*Certs, error) {
	c := &Certs{log: log, ready: make(chan struct{})}
	var err error
	switch s.Mode {
	case ModeSelfManaged:
		o.Overlap, o.LeafDuration = cmp.Or(o.Overlap, s.Overlap), cmp.Or(o.LeafDuration, s.LeafDuration)
		c.source = newSelfManaged(s, api, log, m, o.withDefaults())
	case ModeFiles:
		c.source, err = newFiles(s, log, o.withDefaults().Reread)
	default:
		err = fmt.Errorf("no certificates with tls mode %q", s.Mode)
	}
	if err != nil {
		return nil, err
	}
	m.certificate = c.source.certificate
	return c, nil
}

// Start keeps the certificate current until ctx ends, and returns nil then.
func (c *Certs) Start(ctx context.Context) error {
	ctx = logr.NewContext(ctx, logr.FromSlogHandler(c.log.Handler()))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := c.source.start(ctx, c.publish); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			if _, err := c.source.certificate(nil); err == nil && len(c.Bundle()) > 0 {
				tick.Stop()
				close(c.ready)
				return nil
			}
			select {
			case <-ctx.Done():
				tick.Stop()
				return nil
			case <-tick.C:
			}
		}
	})
	return g.Wait()
}

// Ready is closed when there is a certificate and a bundle.
func (c *Certs) Ready() <-chan struct{} { return c.ready }

// GetCertificate is for tls.Config.
func (c *Certs) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.source.certificate(hello)
}

// Bundle returns the PEM of all authorities that clients should trust now; empty
// before Ready. It must not be modified.
func (c *Certs) Bundle() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bundle
}

// OnBundle lets f be called with every new bundle, by one goroutine. It is to
// be called before Start.
func (c *Certs) OnBundle(f func([]byte)) { c.tell = append(c.tell, f) }

func (c *Certs) publish(bundle []byte) {
	c.mu.Lock()
	same := bytes.Equal(c.bundle, bundle)
	c.bundle = bundle
	c.mu.Unlock()
	if same {
		return
	}
	for _, f := range c.tell {
		f(bundle)
	}
}

// errNoCertificate is what a server answers with before it is ready.
var errNoCertificate = errors.New("no certificate yet")
