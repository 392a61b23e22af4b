// Command bench measures the collector against a real API server, beside a
// comparison in the same run, and prints a table with a row a figure. Absolute
// times vary with the machine; what is compared counts.
//
// It boots etcd and an API server, writes a simulated cluster into them, runs
// the collector as a process of its own and subscribes for every node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// Hidden commands: the processes that the collector is compared with.
const (
	replayCommand    = "replay"
	reflectorCommand = "reflector"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case replayCommand:
			return serveRecording(ctx, os.Stdout, args[1:])
		case reflectorCommand:
			return runReflector(ctx, os.Stdout, args[1:])
		}
	}
	ctrllog.SetLogger(logr.Discard()) // of the webhook that runs in this process
	s, err := parse(args)
	if err != nil {
		return err
	}
	return runBench(ctx, s, os.Stdout, progress{os.Stderr})
}
