package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

func newInventoryReceive() *cobra.Command {
	c := &cobra.Command{
		Use:   "receive",
		Short: "Be an endpoint of the inventory, and print what comes",
		Long: `Take the inventory by both of its contracts, strictly, and print a line for each
request: what it was, and what is wrong with it if it was refused. For people who
write an endpoint of their own. What arrives is kept in memory and is gone when
the command ends, which it does when it is interrupted; it then prints how much
that was.

Anybody who reaches the address may send, unless one of these environment
variables is set: METAWIRE_TOKEN asks for that bearer token, METAWIRE_ACCESS_KEY
with METAWIRE_SECRET_KEY for a login.`,
		Example: `  metawire inventory receive --address 127.0.0.1:8090

  # In another shell: send it an inventory
  cat > once.yaml <<EOF
  apiVersion: metawire.dev/v1alpha1
  kind: CollectorConfig
  clusterID: my-cluster
  inventory:
    enabled: true
    endpoint: http://127.0.0.1:8090/ingest
    resources: [pods, deployments.apps]
  EOF
  metawire inventory --once --config once.yaml`,
		Args: cobra.NoArgs,
	}
	var address string
	c.Flags().StringVar(&address, "address", "127.0.0.1:8090", "`host:port` to listen on")
	output := outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		access, secret := os.Getenv("METAWIRE_ACCESS_KEY"), os.Getenv("METAWIRE_SECRET_KEY")
		if (access == "") != (secret == "") {
			return errors.New("METAWIRE_ACCESS_KEY and METAWIRE_SECRET_KEY are set together, or not at all")
		}
		out := c.OutOrStdout()
		log := slog.New(slog.NewJSONHandler(out, nil))
		if output.value == "text" {
			log = slog.New(&requestLines{w: out})
		}
		r := receiver.New(receiver.Options{Token: os.Getenv("METAWIRE_TOKEN"), AccessKey: access, SecretKey: secret, Log: log})
		if err := receive(c.Context(), address, r, c.ErrOrStderr()); err != nil {
			return err
		}
		kept := r.Kept()
		fmt.Fprintf(c.ErrOrStderr(), "%d objects and %d deletions in %d pages of %d runs; %d requests refused\n",
			len(kept.Objects), len(kept.Deleted), len(kept.Pages), len(kept.Runs), kept.Refused)
		return nil
	}
	return c
}

// receive serves until ctx ends.
func receive(ctx context.Context, address string, handler http.Handler, stderr io.Writer) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on --address %s: %w", address, err)
	}
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintf(stderr, "listening on http://%s; end with ctrl-c\n", l.Addr())
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", address, err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if s.Shutdown(ending) != nil {
		_ = s.Close() // what still goes on has had its time
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	return nil
}

// requestLines is a slog.Handler that writes the receiver's log for people.
type requestLines struct{ w io.Writer }

func (*requestLines) Enabled(context.Context, slog.Level) bool { return true }

func (h *requestLines) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *requestLines) WithGroup(string) slog.Handler { return h }

// Handle writes one line with one write: requests come side by side.
func (h *requestLines) Handle(_ context.Context, r slog.Record) error {
	at := map[string]slog.Value{}
	r.Attrs(func(a slog.Attr) bool {
		at[a.Key] = a.Value
		return true
	})
	var line strings.Builder
	fmt.Fprintf(&line, "%s %s %s %s", r.Time.Format("15:04:05.000"), at["status"], at["method"], at["path"])
	for _, key := range []string{"run", "page"} {
		if v := at[key].String(); v != "" {
			fmt.Fprintf(&line, " %s %s", key, v)
		}
	}
	if err, ok := at["error"].Any().(error); ok {
		fmt.Fprintf(&line, ": %s", err)
	}
	_, err := io.WriteString(h.w, line.String()+"\n")
	return err
}
