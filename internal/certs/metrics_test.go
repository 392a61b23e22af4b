package certs

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestDatesWithoutClients: the metrics tell of the certificate that would be
// served, also while nobody asks for it.
func TestDatesWithoutClients(t *testing.T) {
	v := &volume{dir: t.TempDir()}
	files := issued(t)
	v.write(t, files)
	at := func(name string) string { return filepath.Join(v.dir, name) }
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	date := func(which string) float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "metawire_certificate_"+which+"_timestamp_seconds" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("there is no such metric")
		return 0
	}
	for _, which := range []string{"expiry", "not_before"} {
		if got := date(which); got != 0 {
			t.Errorf("%s: %v before there is a certificate, want 0", which, got)
		}
	}
	if _, err := New(Settings{Mode: ModeFiles, CertFile: at("tls.crt"), KeyFile: at("tls.key")}, nil, slog.New(slog.DiscardHandler), m, Options{}); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(files["tls.crt"])
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for which, want := range map[string]time.Time{"expiry": cert.NotAfter, "not_before": cert.NotBefore} {
		if got := date(which); got != float64(want.Unix()) {
			t.Errorf("%s: %v, want %v", which, got, want.Unix())
		}
	}
}
