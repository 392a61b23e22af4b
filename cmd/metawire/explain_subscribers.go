package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/subscription"
)

// explainSubscribers is the command's flags.
type explainSubscribers struct {
	cluster cluster
	node    string
	output  *choice
}

func newExplainSubscribers() *cobra.Command {
	c := &cobra.Command{
		Use:   "subscribers",
		Short: "Say who is connected to each collector, and who was refused",
		Long: `Ask every collector who subscribes: which node, which pod if that is known, since
when, with TLS or not, what was sent, what is pending, and whom it has refused
lately and why. Each is asked through the API server, with a token of the release's
ServiceAccount for people, as metawire watch does it.

Exit codes: 0 all were asked; 2 one could not be, or there is no node of that name;
1 error.`,
		Example: `  metawire explain subscribers

  # Of one node, as JSON
  metawire explain subscribers --node worker-1 -o json`,
		Args: cobra.NoArgs,
	}
	var e explainSubscribers
	e.cluster.flags(c)
	c.Flags().StringVar(&e.node, "node", "", "`name` of a node (default: all)")
	e.output = outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		replicas, unknown, err := e.ask(c.Context())
		if err != nil {
			return err
		}
		write := writeSubscribers
		if e.output.value == "json" {
			write = encodeSubscribers
		}
		if err := write(c.OutOrStdout(), replicas); err != nil {
			return err
		}
		if unknown != "" {
			fmt.Fprintln(c.ErrOrStderr(), unknown)
		}
		return missed(replicas, unknown)
	}
	return c
}

// missed is the finding that the answer is not all that was asked for.
func missed(replicas []installation.Replica, unknown string) error {
	if unknown != "" {
		return fmt.Errorf("%w: %s", errFinding, unknown)
	}
	for _, r := range replicas {
		if r.Err != nil {
			return fmt.Errorf("%w: a collector could not be asked", errFinding)
		}
	}
	return nil
}

// ask asks the collectors. It says, too, if there is no such node: somebody may
// subscribe to it all the same.
func (e *explainSubscribers) ask(ctx context.Context) (replicas []installation.Replica, unknown string, err error) {
	found, _, err := e.cluster.find(ctx)
	if err != nil {
		return nil, "", err
	}
	if found.Port == 0 {
		return nil, "", errors.New("the release has no stream (stream.enabled is false), so nobody subscribes")
	}
	if e.node != "" {
		unknown = unknownNode(ctx, found, e.node)
	}
	replicas, err = found.Subscriptions(ctx, e.node)
	return replicas, unknown, err
}

// encodeSubscribers writes a JSON array, an object a collector: its name, and what
// it has told (subscription.proto), or why it could not be asked.
func encodeSubscribers(w io.Writer, replicas []installation.Replica) error {
	type replica struct {
		Collector string          `json:"collector"`
		Told      json.RawMessage `json:"told,omitempty"`
		Error     string          `json:"error,omitempty"`
	}
	all := make([]replica, 0, len(replicas))
	for _, r := range replicas {
		out := replica{Collector: r.Pod}
		if r.Err != nil {
			out.Error = r.Err.Error()
		} else {
			told, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(r.Told)
			if err != nil {
				return fmt.Errorf("write what %s has told: %w", r.Pod, err)
			}
			out.Told = told
		}
		all = append(all, out)
	}
	return json.NewEncoder(w).Encode(all)
}

// writeSubscribers writes them for people.
func writeSubscribers(w io.Writer, replicas []installation.Replica) error {
	for _, r := range replicas {
		if r.Err != nil {
			fmt.Fprintf(w, "%s could not be asked: %s\n", r.Pod, r.Err)
			continue
		}
		told := r.Told
		fmt.Fprintf(w, "%s: %s", r.Pod, some(len(told.GetSubscribers())+int(told.GetLeftOut()), "subscriber"))
		for _, n := range []struct {
			n    int64
			what string
		}{
			{told.GetLeftOut(), "of them are not shown, the answer would be too long"},
			{told.GetUnnamed(), "more name no node, and get nothing"},
			{told.GetUndecided(), "wait until it is known whether they may be served"},
		} {
			if n.n > 0 {
				fmt.Fprintf(w, "; %d %s", n.n, n.what)
			}
		}
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		if len(told.GetSubscribers()) > 0 {
			fmt.Fprintln(t, "  NODE\tPOD\tBY\tSINCE\tSENT\tPENDING")
		}
		for _, s := range told.GetSubscribers() {
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%d\t%d\n", s.GetNode(), whose(s.GetPod(), s.GetAddress()), by(s), local(s.GetSince()), s.GetEventsSent(), s.GetPending())
		}
		if len(told.GetRefusals()) > 0 {
			fmt.Fprintln(t, "  REFUSED\tWHO\tNODE\tLAST\tTIMES\tWHY")
		}
		for _, f := range told.GetRefusals() {
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%d\t%s (%s)\n", f.GetOf(), whose(f.GetPod(), f.GetAddress()), cmp.Or(f.GetNode(), "-"), local(f.GetLast()), f.GetTimes(), f.GetReason(), f.GetCode())
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// by is what authorized the stream, and whether it came without TLS.
func by(s *subscription.Subscriber) string {
	if s.GetPlaintext() {
		return s.GetBy() + ", no TLS"
	}
	return s.GetBy()
}

// whose names who subscribes, as far as it is known.
func whose(p *subscription.Pod, address string) string {
	switch {
	case p.GetName() != "":
		return p.GetNamespace() + "/" + p.GetName()
	case p != nil:
		return "uid " + p.GetUid()
	}
	return cmp.Or(address, "-")
}
