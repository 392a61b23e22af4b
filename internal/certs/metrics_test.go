package certs

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestExpiryWithoutClients: the metric tells of the certificate that would be
// served, also while nobody asks for it.
func TestExpiryWithoutClients(t *testing.T) {
	v := &volume{dir: t.TempDir()}
	files := issued(t)
	v.write(t, files)
	at := func(name string) string { return filepath.Join(v.dir, name) }
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	expiry := func() float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "metawire_certificate_expiry_timestamp_seconds" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("there is no such metric")
		return 0
	}
	if got := expiry(); got != 0 {
		t.Errorf("%v before there is a certificate, want 0", got)
	}
	if _, err := New(Settings{Mode: ModeFiles, CertFile: at("tls.crt"), KeyFile: at("tls.key")}, nil, slog.New(slog.DiscardHandler), m, Options{}); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(files["tls.crt"])
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := expiry(), float64(cert.NotAfter.Unix()); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
