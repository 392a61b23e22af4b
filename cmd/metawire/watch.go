package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/metawire/metawire/cmd/metawire/view"
	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/internal/subscriber"
)

// watch is the command's flags.
type watch struct {
	subscriber.Options

	cluster cluster
	output  *choice
}

func newWatch() *cobra.Command {
	c := &cobra.Command{
		Use:   "watch --node NAME",
		Short: "Show the metadata that the collector streams for a node",
		Long: `Subscribe to a node as Falco's k8smeta plugin does, and show what arrives.

On a terminal: a table that follows the changes; what was created (+), updated
(~) or deleted (-) in the last two seconds is marked. Set NO_COLOR to do without
colors. Elsewhere: a line for each event, but for deletions of what was never
shown: a stream begins with those of the last hour, for a Falco that comes back.

With -o json: a JSON object for each event, all of them, on a line of its own, with the
fields time, reason (Create, Update, Delete), uid, kind, and except for a Delete
meta, status and refs (Pods only; UIDs by kind).

A stream that the collector ends in order to drain is opened again after a
second. The command ends when it is interrupted; with an error when it cannot
connect within 10 s, or not again within 30 s, or is refused.

Without --addr, Metawire is looked for in the cluster of the kubeconfig: the
stream is reached through the API server (as by kubectl port-forward), the
authority of its certificate is read there, and a token for it is asked for,
of the chart's ServiceAccount for people. That takes these permissions: list
services, configmaps, pods and serviceaccounts, create pods/portforward and
serviceaccounts/token in Metawire's namespace, and list
mutatingwebhookconfigurations. Who may get nodes is told if there is none of that
name.`,
		Example: `  # A live table of what Falco on worker-1 is told
  metawire watch --node worker-1

  # The addresses that the node's pods get, as they get them
  metawire watch --node worker-1 --kinds Pod -o json |
    jq -r 'select(.status.podIP) | [.meta.namespace, .meta.name, .status.podIP] | @tsv'

  # Without asking the API server: all is given
  metawire watch --node worker-1 --addr 10.0.0.7:45000 --tls-ca ca.crt \
    --tls-server-name metawire-collector.metawire.svc --token-file token`,
		Args: cobra.NoArgs,
	}
	var w watch
	var kinds []string
	var tokenFile string
	f := c.Flags()
	f.StringVar(&w.Node, "node", "", "name of the `node`, as kubectl get nodes writes it (required)")
	f.StringVar(&w.Target.Addr, "addr", "", "`host:port` of the collector's stream (default: found in the cluster)")
	f.StringVar(&w.Target.CA, "tls-ca", "", "PEM `file` with the authorities to accept; with --addr and without it the connection is plaintext")
	f.StringVar(&w.Target.ServerName, "tls-server-name", "", "`name` that the certificate must carry (default: the host of --addr)")
	f.StringVar(&tokenFile, "token-file", "", "`file` with a token of a ServiceAccount that may read the node, audience metawire.dev; with --addr it needs --tls-ca")
	f.StringSliceVar(&kinds, "kinds", contractKinds(), "`kinds` to show, separated by commas; also known: StatefulSet, Job, CronJob")
	w.cluster.flags(c)
	w.output = outputFlag(c, "table", "json")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if w.Node == "" {
			return errors.New("--node is required: the name of a node, as kubectl get nodes writes it")
		}
		if w.Target.ServerName != "" && w.Target.CA == "" && w.Target.Addr != "" {
			return errors.New("--tls-server-name asks for TLS, which needs --tls-ca")
		}
		if tokenFile != "" {
			w.Target.Token = subscriber.TokenFile(tokenFile)
		}
		if w.Kinds, err = parseKinds(kinds); err != nil {
			return err
		}
		if w.Target.Addr == "" {
			if err := w.find(c.Context(), c.ErrOrStderr()); err != nil {
				return err
			}
		}
		return w.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

// find fills in the target from the cluster, but for what is given.
func (w *watch) find(ctx context.Context, stderr io.Writer) error {
	found, inside, err := w.cluster.find(ctx)
	if err != nil {
		return err
	}
	if unknown := unknownNode(ctx, found, w.Node); unknown != "" {
		fmt.Fprintln(stderr, unknown+"; this waits for it")
	}
	t := &w.Target
	t.Addr = found.Addr()
	if !inside {
		t.Dial = found.Dial
	}
	if !found.TLS && t.CA == "" {
		return nil
	}
	if t.ServerName == "" {
		t.ServerName = found.Host
	}
	if t.CA == "" {
		if t.PEM, err = found.Authorities(ctx); err != nil {
			return err
		}
	}
	if t.Token == nil {
		t.Token = func() (string, error) { return found.Token(ctx) }
	}
	return nil
}

func (w *watch) run(ctx context.Context, stdout, stderr io.Writer) error {
	if w.output.value == "json" {
		return advise(subscriber.Run(ctx, w.Options, jsonLines{stdout, notices{stderr, w.Target.Addr}}))
	}
	v := view.New(w.Node)
	if file, ok := stdout.(*os.File); ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		l := newLive(v, w.Options, terminal{
			Writer: file,
			size:   func() (int, int, error) { return term.GetSize(int(file.Fd())) },
			color:  os.Getenv("NO_COLOR") == "",
		})
		return advise(l.run(ctx, w.Options))
	}
	return advise(subscriber.Run(ctx, w.Options, lines{v, stdout, notices{stderr, w.Target.Addr}}))
}

// contractKinds are the kinds of the contract with Falco's plugin.
func contractKinds() []string {
	return []string{
		string(relation.Pod), string(relation.Namespace), string(relation.Deployment), string(relation.ReplicaSet),
		string(relation.DaemonSet), string(relation.ReplicationController), string(relation.Service),
	}
}

// parseKinds returns the kinds as Kubernetes writes them.
func parseKinds(given []string) ([]string, error) {
	if len(given) == 0 {
		return nil, errors.New("--kinds names no kind")
	}
	known := relation.Kinds()
	kinds := make([]string, 0, len(given))
next:
	for _, g := range given {
		for _, k := range known {
			if strings.EqualFold(g, string(k)) {
				kinds = append(kinds, string(k))
				continue next
			}
		}
		return nil, fmt.Errorf("unknown kind %q: allowed are %s", g, strings.Trim(fmt.Sprint(known), "[]"))
	}
	return kinds, nil
}

// advise adds to an error what can be done about it.
func advise(err error) error {
	var advice string
	switch {
	case errors.Is(err, subscriber.ErrUnreachable):
		advice = "is a collector there, and ready? metawire check tells; without --addr it is found by itself"
	case errors.Is(err, subscriber.ErrNoAnswer):
		advice = "is something behind that address? Does the server expect TLS (--tls-ca), or none?"
	case errors.Is(err, subscriber.ErrTLS):
		advice = "give the authority of its certificate: --tls-ca FILE"
	case errors.Is(err, subscriber.ErrPlaintext):
		advice = "leave --tls-ca out, or give the address of the port that speaks TLS"
	case errors.Is(err, subscriber.ErrCertificate):
		advice = "is --tls-ca the authority that signed it, and --tls-server-name one of its names?"
	default:
		return err
	}
	return fmt.Errorf("%w\n%s", err, advice)
}
