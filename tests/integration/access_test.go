package integration_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/tests/falco/plugin"
)

// watched are the resources that the collector reads, by API group.
func watched() map[string][]string {
	return map[string][]string{
		"":                 {"namespaces", "pods", "services", "replicationcontrollers"},
		"apps":             {"deployments", "replicasets", "daemonsets", "statefulsets"},
		"batch":            {"jobs", "cronjobs"},
		"discovery.k8s.io": {"endpointslices"},
	}
}

// identity is a ServiceAccount of its own.
type identity struct {
	user       string
	token      string
	kubeconfig string // of the API server with that token
	role       *rbacv1.ClusterRole
}

// newIdentity makes one that may list and watch what the collector needs but
// for the resources in except.
func newIdentity(t *testing.T, except ...string) *identity {
	t.Helper()
	ns := newNamespace(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "collector"}}
	id := &identity{
		user: "system:serviceaccount:" + ns + ":collector",
		role: &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: ns}, Rules: rules(except...)},
	}
	create(t, account, id.role, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: ns},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "collector"}},
	})
	token := &authenticationv1.TokenRequest{}
	if err := api.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	id.token = token.Status.Token
	id.kubeconfig = kubeconfig(t, apiREST.Host, id.token)
	return id
}

func rules(except ...string) []rbacv1.PolicyRule {
	var all []rbacv1.PolicyRule
	for group, resources := range watched() {
		all = append(all, rbacv1.PolicyRule{APIGroups: []string{group}, Verbs: []string{"list", "watch"},
			Resources: slices.DeleteFunc(resources, func(r string) bool { return slices.Contains(except, r) })})
	}
	return all
}

// kubeconfig writes one for the server, with the token.
func kubeconfig(t *testing.T, server, token string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, file, fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %q}}]
users: [{name: test, user: {token: %q}}]
`, server, base64.StdEncoding.EncodeToString(apiREST.CAData), token))
	return file
}

// TestForbiddenKind: a kind that may not be read is reported by name, the
// others go on, and it comes when it is granted.
func TestForbiddenKind(t *testing.T) {
	t.Parallel()
	id := newIdentity(t, "cronjobs", "replicationcontrollers")
	c := started(t, setup{kubeconfig: id.kubeconfig})
	code, body := c.get(t, "readyz")
	for _, want := range []string{"CronJob: refused", "ReplicationController: refused", "forbidden", id.user} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("/readyz answers %d and does not say %q: %s", code, want, body)
		}
	}
	if strings.Contains(body, "Deployment") {
		t.Errorf("/readyz names a kind that is not refused: %s", body)
	}
	c.logs.line(t, "level=ERROR", "cronjobs.batch", "grant list and watch")
	c.logs.line(t, "level=WARN", "kind=ReplicationController")
	if n := c.metric(t, "metawire_source_errors_total", map[string]string{"kind": "CronJob", "reason": "forbidden"}); n == 0 {
		t.Error("the refusal is not counted")
	}

	ns := newNamespace(t)
	subscriber := subscribe(t, ns+"-a", c.at)
	kinds := workloads()
	cron, job := kinds["CronJob"](ns, "cron"), kinds["Job"](ns, "job")
	create(t, cron)
	create(t, owned(job, cron))
	create(t, owned(newPod(ns, "pod", ns+"-a"), job))
	knows := func(want ...string) {
		t.Helper()
		eventually(t, func() error {
			if got := known(subscriber); !slices.Equal(got, want) {
				return fmt.Errorf("the subscriber knows %q, want %q", got, want)
			}
			return nil
		})
	}
	knows("Job job", "Pod pod")

	change(t, id.role, func(r *rbacv1.ClusterRole) { r.Rules = rules() })
	knows("CronJob cron", "Job job", "Pod pod")
	converge(t, map[string]*plugin.Client{ns + "-a": subscriber})
	eventually(t, func() error {
		if _, body := c.get(t, "readyz"); body != "ok\n" {
			return fmt.Errorf("/readyz still says %s", body)
		}
		return nil
	})
}

// TestRequiredKindForbidden: without pods there is nothing to serve.
func TestRequiredKindForbidden(t *testing.T) {
	t.Parallel()
	id := newIdentity(t, "pods")
	c := start(t, setup{kubeconfig: id.kubeconfig})
	c.logs.line(t, "level=ERROR", "grant list and watch on pods", "not ready without it")
	eventually(t, func() error {
		if code, body := c.get(t, "readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "Pod: refused") {
			return fmt.Errorf("/readyz answers %d: %s", code, body)
		}
		return nil
	})
	if code, _ := c.get(t, "healthz"); code != http.StatusOK {
		t.Errorf("/healthz answers %d", code)
	}
	told := func(want float64) {
		t.Helper()
		ready, listed := c.metric(t, "metawire_collector_ready", nil), c.metric(t, "metawire_source_listed", map[string]string{"kind": "Pod"})
		if ready != want || listed != want {
			t.Errorf("the metrics tell ready %v and listed %v, want %v", ready, listed, want)
		}
	}
	told(0)
	change(t, id.role, func(r *rbacv1.ClusterRole) { r.Rules = rules() })
	c.waitReady(t)
	told(1)
}

// TestUnauthorized: the log says what is wrong with which server.
func TestUnauthorized(t *testing.T) {
	t.Parallel()
	c := start(t, setup{kubeconfig: kubeconfig(t, apiREST.Host, "no-such-token")})
	c.logs.line(t, "level=ERROR", apiREST.Host, "does not accept our credentials", "token", "kind=Pod ")
	if code, body := c.get(t, "readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "Pod: not listed yet") {
		t.Errorf("/readyz answers %d: %s", code, body)
	}
	if n := c.metric(t, "metawire_source_errors_total", map[string]string{"kind": "Pod", "reason": "unauthorized"}); n == 0 {
		t.Error("not counted")
	}
}

// TestReadyWhenSynced: without an API server the collector lives, is not ready,
// says what is missing and makes its subscribers wait; when the API server
// comes it gets ready by itself, and they get everything.
func TestReadyWhenSynced(t *testing.T) {
	t.Parallel()
	line := newRelay(t)
	ns := newNamespace(t)
	create(t, newPod(ns, "pod", ns+"-a"))
	c := start(t, setup{kubeconfig: kubeconfig(t, "https://"+line.address, newIdentity(t).token)})
	c.logs.line(t, "level=ERROR", line.address, "does not answer", "check its address")
	code, body := c.get(t, "readyz")
	if code != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d before the sync", code)
	}
	for _, kind := range []string{"Namespace", "Pod", "EndpointSlice", "CronJob"} {
		if !strings.Contains(body, kind+": not listed yet") {
			t.Errorf("/readyz does not name %s: %s", kind, body)
		}
	}
	if code, body := c.get(t, "healthz"); code != http.StatusOK {
		t.Errorf("/healthz answers %d: %s", code, body)
	}
	subscriber := subscribe(t, ns+"-a", c.at)
	c.logs.line(t, "subscribed", ns+"-a")
	if n := subscriber.Events(); n > 0 {
		t.Errorf("%d events before the sync", n)
	}
	line.connect(t)
	c.waitReady(t)
	if code, body := c.get(t, "readyz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/readyz answers %d: %q", code, body)
	}
	converge(t, map[string]*plugin.Client{ns + "-a": subscriber})
	if ends := subscriber.Ends(); len(ends) > 0 {
		t.Errorf("the stream ended meanwhile: %v", ends)
	}
}

// relay is a way to the API server that can be cut. It is cut at first.
type relay struct {
	address, target string

	mu       sync.Mutex
	listener net.Listener
	open     []net.Conn
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	host, err := url.Parse(apiREST.Host)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: freeAddress(t), target: host.Host}
	t.Cleanup(r.cut)
	return r
}

func (r *relay) connect(t *testing.T) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.listener = l
	r.mu.Unlock()
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.target)
			if err != nil {
				_ = near.Close()
				continue
			}
			r.mu.Lock()
			r.open = append(r.open, near, far)
			r.mu.Unlock()
			go carry(near, far)
			go carry(far, near)
		}
	}()
}

func carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
}

// cut ends all connections and refuses new ones.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		_ = r.listener.Close()
	}
	for _, c := range r.open {
		_ = c.Close()
	}
	r.open = nil
}
