// Command falco stands in for Falco in tests and in the demo: it reads its
// configuration as Falco 0.41 and later do, "loads" the k8smeta plugin if it is
// configured, behaves as that plugin does, and shows over HTTP what it knows.
// It was written from what is known of Falco, and shares no code with the init
// container that it is tested with.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/metawire/metawire/tests/falco/configuration"
	"github.com/metawire/metawire/tests/falco/plugin"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		log.Print("Error: ", err)
		os.Exit(1) // as Falco
	}
}

// run blocks until ctx ends. What makes Falco exit is an error.
func run(ctx context.Context, args []string) error {
	c, err := configuration.Source{Env: os.Getenv}.Read(args)
	if err != nil {
		return err
	}
	k8smeta, err := k8smetaOf(c)
	if err != nil {
		return err
	}
	s := server{}
	if k8smeta == nil {
		log.Print("k8smeta is not configured: no metadata")
	} else {
		if s.client, err = load(k8smeta, os.Getenv); err != nil { //nolint:contextcheck // it ends by Stop
			return err
		}
		defer s.client.Stop()
		s.NodeName, s.Library = k8smeta.nodeName(os.Getenv), k8smeta.library
	}
	return s.serve(ctx, c.ListenPort)
}

// load starts what the plugin does.
func load(p *k8smeta, env func(string) string) (*plugin.Client, error) {
	if p.Hostname == "" || p.Port == 0 || p.NodeName == nil {
		return nil, errors.New("k8smeta: collectorHostname, collectorPort and nodeName are required")
	}
	o := plugin.Options{
		Node: p.nodeName(env), Kinds: plugin.Kinds(), ServerName: p.Hostname,
		Target: func() string { return net.JoinHostPort(p.Hostname, strconv.Itoa(p.Port)) },
		Seen:   func(reason, kind, name string) { log.Printf("k8smeta: %s %s %s", reason, kind, name) },
		Ended:  func(end plugin.End) { log.Printf("k8smeta: the stream ended: %s", end.Code) },
	}
	if p.CABundle != "" {
		// The plugin reads it once, and goes on in plaintext without it.
		pem, err := os.ReadFile(p.CABundle)
		pool := x509.NewCertPool()
		if err == nil && pool.AppendCertsFromPEM(pem) {
			o.CA = pool
		} else {
			log.Printf("k8smeta: cannot read %s, going on without TLS: %v", p.CABundle, err)
		}
	}
	log.Printf("k8smeta: %s, subscribing to %s as %s", p.library, o.Target(), shown(o.Node))
	return plugin.Start(o), nil
}

// shown is a node name without what is secret in it.
func shown(node string) string {
	for i, r := range node {
		if r == '/' {
			return fmt.Sprintf("%s (with a ticket)", node[:i])
		}
	}
	return node
}
