package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/subscriber"
	"github.com/metawire/metawire/internal/wiring"
)

// Where the demo keeps what a person needs in order to subscribe.
var (
	caFile    = filepath.Join("bin", "access", "ca.crt")
	tokenFile = filepath.Join("bin", "access", "token")
)

// viewer is the release's ServiceAccount for people.
const viewer = "metawire-viewer"

// grant writes the authority of the release, and a token of its viewer.
func (s *site) grant(ctx context.Context) error {
	secret, err := s.api.CoreV1().Secrets(namespace).Get(ctx, "metawire-ca", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the authority: %w", err)
	}
	token, err := s.api.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, viewer, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{wiring.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("ask for a token of the viewer: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(caFile), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(caFile, secret.Data["ca.crt"], 0o600); err != nil {
		return err
	}
	s.secure = true
	return os.WriteFile(tokenFile, []byte(token.Status.Token), 0o600)
}

// target is the stream as the demo's own subscriber reaches it.
func (s *site) target(addr string) subscriber.Target {
	if !s.secure {
		return subscriber.Target{Addr: addr}
	}
	return subscriber.Target{Addr: addr, CA: caFile, ServerName: serverName, Token: subscriber.TokenFile(tokenFile)}
}

// serverName is what the collector's certificate carries.
const serverName = collectorName + "." + namespace + ".svc"

// watch is the command line that shows the node.
func (s *site) watch(addr string) []string {
	args := []string{"watch", "--node", s.node, "--addr", addr}
	if s.secure {
		args = append(args, "--tls-ca", caFile, "--tls-server-name", serverName, "--token-file", tokenFile)
	}
	return args
}
