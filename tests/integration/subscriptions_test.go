package integration_test

import (
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/subscription"
	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/tests/falco/plugin"
)

// TestWhoSubscribes: whatever is done with subscribers that are not authorized,
// who subscribes is told to those who may list nodes/stream, by a token for us,
// and to nobody else. (The listener is one on loopback, as at the end of a
// port-forward: there tokens are taken without TLS.)
func TestWhoSubscribes(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	node := ns + "-a"
	create(t, newPod(ns, "pod", node))
	lists := reader(t, ns, "lists", rbacv1.PolicyRule{APIGroups: []string{"metawire.dev"}, Resources: []string{"nodes/stream"}, Verbs: []string{"list"}})
	gets := reader(t, ns, "gets", rbacv1.PolicyRule{APIGroups: []string{"metawire.dev"}, Resources: []string{"nodes/stream"}, Verbs: []string{"get"}})
	named := reader(t, ns, "named", rbacv1.PolicyRule{APIGroups: []string{"metawire.dev"}, Resources: []string{"nodes/stream"}, Verbs: []string{"get", "list"}, ResourceNames: []string{node}})
	nothing := reader(t, ns, "nothing")
	for _, mode := range []string{"enforce", "audit", "disabled"} {
		t.Run(mode, func(t *testing.T) {
			c := started(t, setup{kubeconfig: plane.Kubeconfig(), authorize: mode})
			conn, err := grpc.NewClient(c.stream, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			list := func(token string) (*subscription.ListResponse, error) {
				ctx := t.Context()
				if token != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
				}
				return subscription.NewSubscriptionsClient(conn).List(ctx, &subscription.ListRequest{Node: node})
			}
			for name, c := range map[string]struct {
				token string
				want  codes.Code
			}{
				"no token":                  {"", codes.Unauthenticated},
				"a token that is none":      {"x.y.z", codes.Unauthenticated},
				"a token for the API":       {lists.token(t, ""), codes.Unauthenticated},
				"may nothing":               {nothing.token(t, wiring.Audience), codes.PermissionDenied},
				"may get nodes/stream":      {gets.token(t, wiring.Audience), codes.PermissionDenied},
				"may list it for this node": {named.token(t, wiring.Audience), codes.PermissionDenied},
				"may list nodes/stream":     {lists.token(t, wiring.Audience), codes.OK},
				"a token that was changed":  {lists.token(t, wiring.Audience) + "x", codes.Unauthenticated},
			} {
				if _, err := list(c.token); status.Code(err) != c.want {
					t.Errorf("%s: %v, want %s", name, err, c.want)
				}
			}
			s := subscribe(t, node, c.at)
			if mode != "enforce" { // loopback proves nothing
				converge(t, map[string]*plugin.Client{node: s})
			}
			eventually(t, func() error {
				told, err := list(lists.token(t, wiring.Audience))
				if err != nil {
					return err
				}
				refused, served := told.GetRefusals(), told.GetSubscribers()
				switch {
				case told.GetAuthorization() != mode:
				case mode != "disabled" && (len(refused) != 1 || refused[0].GetCode() != "address_loopback" || refused[0].GetNode() != node ||
					refused[0].GetAddress() != "127.0.0.1" || refused[0].GetServed() != (mode == "audit")):
				case mode == "enforce" && len(served) == 0, mode != "enforce" && len(served) == 1 && served[0].GetBy() == "nothing" &&
					served[0].GetNode() == node && served[0].GetEventsSent() == int64(len(s.Table())) && served[0].GetPending() == 0 && served[0].GetPod() == nil:
					return nil
				}
				return fmt.Errorf("told %v", told)
			})
		})
	}
}

// account is a ServiceAccount.
type account struct{ *corev1.ServiceAccount }

// reader makes one with these permissions.
func reader(t *testing.T, ns, name string, rules ...rbacv1.PolicyRule) account {
	t.Helper()
	a, role := account{&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}}, ns+"-"+name
	create(t, a.ServiceAccount, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: rules}, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: name}},
	})
	return a
}

// token is one for the audience, for the API server itself if that is empty.
func (a account) token(t *testing.T, audience string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	if err := api.SubResource("token").Create(t.Context(), a.ServiceAccount, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}
