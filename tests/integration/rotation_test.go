package integration_test

import (
	"log/slog"
	"testing"

	"github.com/metawire/metawire/tests/rotation"
)

// TestRotation: certificates are renewed and the authority changes twice while
// pods are admitted, subscribers stay and clients come and go; nobody notices.
// `make bench` does it for longer.
func TestRotation(t *testing.T) {
	r, err := rotation.Run(t.Context(), rotation.Options{
		API: apiREST, Changes: 2, Leaves: 10,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if r.Changes != 2 || r.Leaves < 10 || r.Admissions < 100 || r.Connections < 500 || r.Events < 100 {
		t.Errorf("this shows too little: %+v", r)
	}
}
