package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// volume is a Secret as the kubelet shows it: links to files in a directory that
// is swapped as a whole.
type volume struct {
	dir string
	n   int
}

// write shows new content.
func (v *volume) write(t *testing.T, content map[string][]byte) {
	t.Helper()
	v.n++
	data := filepath.Join(v.dir, "..data."+string(rune('a'+v.n)))
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range content {
		if err := os.WriteFile(filepath.Join(data, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if v.n == 1 {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(v.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap := filepath.Join(v.dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(data), swap); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(swap, filepath.Join(v.dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// issued is a certificate with its key, and the authority that signed it.
func issued(t *testing.T) map[string][]byte {
	t.Helper()
	ca, caKey, err := generate(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	// An authority's certificate serves as well: what counts is which one it is.
	return map[string][]byte{"tls.crt": ca, "tls.key": caKey, "ca.crt": ca}
}

// TestFiles: a certificate and an authority that are replaced in their volume are
// served and told without a restart; what cannot be read changes nothing.
func TestFiles(t *testing.T) {
	v := &volume{dir: t.TempDir()}
	first := issued(t)
	v.write(t, first)
	at := func(name string) string { return filepath.Join(v.dir, name) }
	c, err := New(Settings{Mode: ModeFiles, CertFile: at("tls.crt"), KeyFile: at("tls.key"), CAFile: at("ca.crt")}, nil,
		slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()), Options{Reread: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan []byte, 10)
	c.OnBundle(func(b []byte) { told <- b })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	serves := func(want map[string][]byte) {
		t.Helper()
		select {
		case got := <-told:
			if !bytes.Equal(got, want["ca.crt"]) || !bytes.Equal(c.Bundle(), got) {
				t.Error("the bundle is not the file's")
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the authority is not told")
		}
		pair, err := tls.X509KeyPair(want["tls.crt"], want["tls.key"])
		if err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.After(30 * time.Second); ; {
			got, err := c.GetCertificate(&tls.ClientHelloInfo{})
			if err == nil && bytes.Equal(got.Certificate[0], pair.Certificate[0]) {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("another certificate is served, error %v", err)
			}
		}
	}
	serves(first)
	broken := issued(t)
	broken["tls.crt"], broken["ca.crt"] = []byte("no PEM"), []byte("no PEM")
	v.write(t, broken)
	next := issued(t)
	v.write(t, next)
	serves(next)
	if roots := x509.NewCertPool(); !roots.AppendCertsFromPEM(c.Bundle()) {
		t.Error("the bundle holds no certificate")
	}
}
