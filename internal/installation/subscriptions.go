package installation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/subscription"
)

// Replica is what a collector says of its subscribers.
type Replica struct {
	Pod string // the collector's name
	// Told is nil if it could not be asked.
	Told *subscription.ListResponse
	// Err says why it could not be asked, and what to do.
	Err error
}

const (
	askTimeout = 15 * time.Second
	askAtOnce  = 4        // each is a tunnel through the API server
	maxAnswer  = 32 << 20 // of the bounded list, with room for long names
)

// Subscriptions asks every collector who subscribes to a node, to any if it is
// empty, and who was refused: each through the API server, with a token as Token
// returns it. The error says why none could be asked; what is wrong with one
// alone stands in its Replica. Replicas that are not ready are asked too: what
// they know may say why.
func (i *Installation) Subscriptions(ctx context.Context, node string) ([]Replica, error) {
	pods, err := i.Pods(ctx, Collector)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("there is no collector in namespace %q: kubectl -n %s get deployments,events", i.Namespace, i.Namespace)
	}
	creds := insecure.NewCredentials() // the tunnel is encrypted, and ends in the pod
	if i.TLS {
		bundle, err := i.Authorities(ctx)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(bundle)
		creds = credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: i.Host, MinVersion: tls.VersionTLS12})
	}
	token, err := i.Token(ctx)
	if err != nil {
		return nil, err
	}
	all, slots := make([]Replica, len(pods)), make(chan struct{}, askAtOnce)
	var asked sync.WaitGroup
	for n := range pods {
		asked.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[n].Pod = pods[n].Name
			all[n].Told, all[n].Err = i.ask(ctx, &pods[n], creds, token, node)
		})
	}
	asked.Wait()
	return all, nil
}

// ask asks one collector.
func (i *Installation) ask(ctx context.Context, pod *corev1.Pod, creds credentials.TransportCredentials, token, node string) (*subscription.ListResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if pod.Status.Phase != corev1.PodRunning {
		return nil, fmt.Errorf("it is %s, not Running: kubectl -n %s describe pod %s", pod.Status.Phase, i.Namespace, pod.Name)
	}
	port, err := PortOf(pod, "grpc")
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+pod.Name, grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithPerRPCCredentials(tunneled(token)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return i.DialPod(ctx, pod.Name, port) }))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	told, err := subscription.NewSubscriptionsClient(conn).List(ctx, &subscription.ListRequest{Node: node})
	if err != nil {
		return nil, advised(err)
	}
	return told, nil
}

// advised adds to a collector's answer what to do about it.
func advised(err error) error {
	s := status.Convert(err)
	advice := "metawire check says how the collector is"
	switch s.Code() {
	case codes.Unimplemented:
		return errors.New("it is of a version that does not tell: upgrade the release to that of this metawire")
	case codes.PermissionDenied:
		advice = "the ClusterRole of the release's viewer must allow list on nodes/stream in the group metawire.dev: helm upgrade restores it"
	case codes.Unauthenticated:
		advice = "may the collector create tokenreviews? helm upgrade restores its ClusterRole"
	default:
	}
	return fmt.Errorf("%s: %s", s.Message(), advice)
}

// tunneled is a bearer token that goes through the API server's tunnel, which
// nobody else reads, with TLS of its own or without.
type tunneled string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t tunneled) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (tunneled) RequireTransportSecurity() bool { return false }
