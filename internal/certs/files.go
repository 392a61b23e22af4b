package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"github.com/metawire/metawire/internal/wiring"
)

// files serves the certificate of PEM files, as they are now.
type files struct {
	settings Settings
	log      *slog.Logger
	watcher  *certwatcher.CertWatcher
	reread   time.Duration
}

func newFiles(s Settings, log *slog.Logger, reread time.Duration) (*files, error) {
	w, err := certwatcher.New(s.CertFile, s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s and key %s: %w", s.CertFile, s.KeyFile, err)
	}
	return &files{s, log, w.WithWatchInterval(reread), reread}, nil
}

func (f *files) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := f.watcher.GetCertificate(hello)
	if err == nil && c == nil {
		err = errNoCertificate
	}
	return c, err
}

// start implements source. Without a file of authorities the bundle is what the
// certificate's file holds.
func (f *files) start(ctx context.Context, published func([]byte)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.watcher.Start(ctx) })
	g.Go(func() error {
		file, told := f.settings.CAFile, ""
		if file == "" {
			file = f.settings.CertFile
		}
		tick := time.NewTicker(f.reread)
		defer tick.Stop()
		for {
			bundle, err := os.ReadFile(file)
			if err == nil && len(wiring.Fingerprints(bundle)) == 0 {
				err = fmt.Errorf("%s holds no certificate in PEM", file)
			}
			switch {
			case err == nil:
				published(bundle)
				told = ""
			case err.Error() != told:
				f.log.Error("cannot read the authorities to trust: going on with those of before", "error", err)
				told = err.Error()
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	return g.Wait()
}
