// Command demo shows the project's main job on a real cluster, from nothing:
// the collector is installed, a subscriber gets its node's metadata, and then
// changes; an endpoint gets the inventory. It is behind make demo and make demo-down, and runs in the root of
// the repository. Every figure that it prints was measured in that run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/metawire/metawire/internal/subscriber"
	"github.com/metawire/metawire/tests/cluster"
)

const usage = `usage: demo up [flags] | demo down

Without KUBECONFIG: a cluster of its own, the one of make cluster. As root on
Linux that is a node on which pods run; else a control plane without nodes, and
the collector is a process beside it. With KUBECONFIG: that cluster, which must
be able to pull the image.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case interrupted:
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; make demo-down removes what is there")
	default:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
	}
	os.Exit(1)
}

// run executes the command line; it blocks until the demo is over.
func run(ctx context.Context, out io.Writer, args []string) error {
	d := demo{screen: newScreen(out), state: ".cluster"}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&d.image, "image", os.Getenv("IMAGE"), "with KUBECONFIG: `name:tag` of an image that the cluster can pull (default: the chart's)")
	flags.StringVar((*string)(&d.size), "size", string(defaultSize()), "without KUBECONFIG: node, or control-plane")
	flags.DurationVar(&d.pause, "pause", d.screen.pause(), "time to look at the table between two changes")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	foreign, err := d.foreign()
	if err != nil {
		return err
	}
	var p place
	switch {
	case foreign:
		p = &theirs{demo: &d}
	case d.size == cluster.Node:
		p = &node{demo: &d}
	case d.size == cluster.ControlPlane:
		p = &controlPlane{demo: &d}
	default:
		return fmt.Errorf("size %q: want %s or %s", d.size, cluster.Node, cluster.ControlPlane)
	}
	switch command {
	case "up":
		return d.up(ctx, p)
	case "down":
		return p.down(ctx)
	}
	return fmt.Errorf("no command %q\n%s", command, usage)
}

// defaultSize is what this user can run here.
func defaultSize() cluster.Size {
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		return cluster.Node
	}
	return cluster.ControlPlane
}

// demo is what all places share.
type demo struct {
	screen *screen
	state  string // directory of our own cluster
	size   cluster.Size
	image  string
	pause  time.Duration
	// running are processes that end with the context of install.
	running sync.WaitGroup
}

// place is where the demo plays.
type place interface {
	// prepare blocks until there is a cluster and all that is to run in it.
	prepare(ctx context.Context) (*site, error)
	// install blocks until a collector serves, and returns how to reach it. What
	// it starts ends with ctx.
	install(ctx context.Context, s *site) (subscriber.Target, error)
	// falco shows how Falco is wired, where that is possible.
	falco(ctx context.Context, s *site) error
	// inventory shows one run of the inventory, where that is possible.
	inventory(ctx context.Context, s *site) error
	// next says what to try afterwards.
	next(s *site, t subscriber.Target) []string
	// down removes what the demo has made.
	down(ctx context.Context) error
}

// kubeconfig is our own cluster's.
func (d *demo) kubeconfig() (string, error) {
	return filepath.Abs(filepath.Join(d.state, "kubeconfig"))
}

// foreign tells whether KUBECONFIG names a cluster that is not our own: the
// demo itself advises to export ours.
func (d *demo) foreign() (bool, error) {
	own, err := d.kubeconfig()
	if err != nil {
		return false, fmt.Errorf("directory %s: %w", d.state, err)
	}
	given := os.Getenv("KUBECONFIG")
	if given == "" {
		return false, nil
	}
	abs, err := filepath.Abs(given)
	return abs != own, err
}
