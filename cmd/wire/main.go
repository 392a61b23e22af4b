// Command wire is the init container of a wired Falco pod: it makes Falco
// subscribe to the collector, or stands down. It always exits 0, since Falco
// must start whatever happens here.
package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/metawire/metawire/internal/wiring"

	_ "golang.org/x/crypto/x509roots/fallback" // the image holds no public authorities
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	verdict := run(ctx, os.Getenv(wiring.TaskVariable))
	stop()
	report(verdict, os.Stderr, "/dev/termination-log")
}

// report logs the verdict and leaves it as the container's termination message,
// where that can be written.
func report(v wiring.Verdict, log io.Writer, message string) {
	slog.New(slog.NewJSONHandler(log, nil)).Info(v.Reason, "wired", v.Wired, "ticket", v.Ticket, "stoodDown", v.StoodDown)
	f, err := os.OpenFile(message, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(v.String()) // nobody is left to tell
}
