// Command cluster keeps a test cluster running between commands: it is behind
// make cluster, make cluster-control-plane and make cluster-down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/metawire/metawire/tests/cluster"
	"github.com/metawire/metawire/tests/cluster/debian"
)

const usage = `usage: cluster COMMAND [flags]

  up         start a cluster, or use the one that runs
  down       stop it, and remove what is left of one that was killed
  import     load image archives into a running cluster of size node
  binaries   build the binaries of sets (control-plane, node, kwok,
             certmanager) and write the directory of each
  packages   install the Debian packages that size node needs, or those of
             arguments COMMAND=PACKAGES whose COMMAND is not there

cluster COMMAND -h shows the flags.
`

func main() {
	cluster.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no command\n%s", usage)
	}
	flags := flag.NewFlagSet("cluster "+args[0], flag.ContinueOnError)
	s := settings{}
	flags.StringVar(&s.Dir, "dir", ".cluster", "state directory")
	flags.StringVar(&s.Name, "name", "dev", "name of the node's cgroups and veth")
	command := map[string]func() error{
		"up":   func() error { return up(ctx, out, s) },
		"hold": func() error { return hold(ctx, s) },
		"down": func() error { return down(ctx, out, s) },
		"import": func() error {
			return load(ctx, out, s, flags.Args())
		},
		"binaries": func() error {
			for _, set := range flags.Args() {
				dir, err := cluster.Binaries(ctx, os.Stderr, cluster.Set(set))
				if err != nil {
					return err
				}
				fmt.Fprintln(out, dir)
			}
			return nil
		},
		"packages": func() error { return install(ctx, out, flags.Args()) },
	}[args[0]]
	if command == nil {
		return fmt.Errorf("no command %q\n%s", args[0], usage)
	}
	if args[0] == "up" || args[0] == "hold" {
		flags.StringVar((*string)(&s.Size), "size", string(cluster.Node), "control-plane or node")
		flags.BoolVar(&s.Controllers, "controllers", true, "control-plane: also controller manager and scheduler")
		flags.IntVar(&s.Port, "port", 16443, "control-plane: port of the API server")
		flags.IntVar(&s.Subnet, "subnet", 0, "node: which address ranges, 0 to 15")
		flags.StringVar(&s.Bin, "bin", "", "directory of the binaries (default: build them)")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	return command()
}

// install installs Debian packages for commands that are missing.
func install(ctx context.Context, out io.Writer, args []string) error {
	commands := map[string]string{}
	for _, a := range args {
		command, packages, found := strings.Cut(a, "=")
		if !found {
			return fmt.Errorf("argument %q: want COMMAND=PACKAGES", a)
		}
		commands[command] = packages
	}
	if len(commands) == 0 {
		commands = cluster.Packages()
	}
	return debian.Install(ctx, out, commands)
}
