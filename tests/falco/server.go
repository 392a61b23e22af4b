package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/metawire/metawire/tests/falco/plugin"
)

// server shows the state.
type server struct {
	NodeName string // what the plugin sends
	Library  string // what its library's file says

	client *plugin.Client // nil if the plugin is not loaded
}

// serve blocks until ctx ends.
func (s *server) serve(ctx context.Context, port int) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, `{"status":"ok"}`) })
	mux.HandleFunc("GET /k8smeta", func(w http.ResponseWriter, _ *http.Request) {
		state := plugin.State{NodeName: s.NodeName, Library: s.Library}
		if s.client != nil {
			state.Loaded = true
			s.client.Tell(&state)
		}
		_ = json.NewEncoder(w).Encode(state)
	})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = web.Close() })
	if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
