package wire

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/metawire/metawire/internal/ticket"
	"github.com/metawire/metawire/internal/wiring"
)

// How often the ticket is asked for until its time is up.
const (
	firstRetry   = 250 * time.Millisecond
	longestRetry = 2 * time.Second
	oneAttempt   = 8 * time.Second // a try; TokenReview and a pod not yet seen take their time
)

// getNodeName returns what the plugin sends as nodeName: the ticket, or else the
// variable that holds the node's name, with the reason. Falco takes "$${X}" for
// "${X}", which the plugin replaces by the variable as it is; had Falco replaced
// it, a name of digits would be a number.
func getNodeName(ctx context.Context, task wiring.Task, o Options) (string, error) {
	t, err := getTicket(ctx, task, o)
	if err != nil {
		return "$${" + task.NodeVariable + "}", err
	}
	return t, nil
}

// refusals is how often the collector may refuse the token: it may not have seen
// the pod yet, or the token may have been renewed meanwhile.
const refusals = 3

// getTicket asks the collector for the pod's ticket until it gets one or its
// time is up. A collector that has no tickets says so at once.
func getTicket(ctx context.Context, task wiring.Task, o Options) (string, error) {
	if !task.TLS {
		return "", errors.New("the stream is plaintext, over which no token is sent")
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Ticket, 20*time.Second))
	defer cancel()
	conn, err := dial(task, o)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client := ticket.NewTicketsClient(conn)
	refused := 0
	for wait := firstRetry; ; wait = min(2*wait, longestRetry) {
		t, err := issue(ctx, client, o)
		switch status.Code(err) {
		case codes.OK, codes.Unimplemented:
			return t, err
		case codes.PermissionDenied, codes.Unauthenticated:
			if refused++; refused == refusals {
				return "", err
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return "", err
		case <-timer.C:
		}
	}
}

// dial connects to the collector by its name, without the proxies and service
// configurations of the environment.
func dial(task wiring.Task, o Options) (*grpc.ClientConn, error) {
	pem, err := os.ReadFile(o.path(wiring.CAFile))
	if err != nil {
		return nil, fmt.Errorf("read the authorities: %w", withoutRoot(err, wiring.CAFile))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", wiring.CAFile)
	}
	secure := credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: task.Host, MinVersion: tls.VersionTLS12})
	address := net.JoinHostPort(task.Host, strconv.Itoa(task.Port))
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(secure), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 2, Jitter: 0.2, MaxDelay: longestRetry},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("collector %s: %w", address, err)
	}
	return conn, nil
}

// issue asks once. The token is read each time, since the kubelet renews it.
func issue(ctx context.Context, client ticket.TicketsClient, o Options) (string, error) {
	token, err := os.ReadFile(o.path(wiring.TokenFile))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", withoutRoot(err, wiring.TokenFile))
	}
	ctx, cancel := context.WithTimeout(ctx, oneAttempt)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token)))
	answer, err := client.Issue(ctx, &ticket.IssueRequest{})
	if err != nil {
		return "", fmt.Errorf("ask for a ticket: %w", err)
	}
	t, ok := ticket.Parse(answer.GetTicket())
	if !ok || t.Node == "" || t.PodUID == "" || t.MAC == "" || strings.ContainsFunc(answer.GetTicket(), unfit) {
		return "", errors.New("ask for a ticket: the collector's answer is none") // not shown: it may be a secret
	}
	return answer.GetTicket(), nil
}

// unfit says what a ticket cannot hold: Falco replaces what begins with $.
func unfit(r rune) bool { return r <= ' ' || r > '~' || r == '$' }
