package main

import (
	"context"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/subscriber"
)

// reach is how the demo's own subscriber gets to the stream: as metawire watch
// does for a person.
func (s *site) reach(ctx context.Context) (subscriber.Target, error) {
	found, err := installation.Find(ctx, s.config, namespace)
	if err != nil {
		return subscriber.Target{}, err
	}
	authorities, err := found.Authorities(ctx)
	return subscriber.Target{
		Addr: found.Addr(), Dial: found.Dial, PEM: authorities, ServerName: found.Host,
		Token: func() (string, error) { return found.Token(ctx) },
	}, err
}

// watch is the command line that shows the node; it finds the collector by
// itself unless the address is given.
func (s *site) watch(t subscriber.Target) []string {
	args := []string{"watch", "--node", s.node}
	if t.Dial == nil {
		return append(args, "--addr", t.Addr)
	}
	if s.kubeconfig != "" {
		args = append(args, "--kubeconfig", s.kubeconfig)
	}
	return args
}
