package integration_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	helmtime "helm.sh/helm/v3/pkg/time"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/migrate"
)

// recorded writes a release as Helm does, and installs nothing.
func recorded(t *testing.T, namespace, name, chart string, revision int, status release.Status, change func(*release.Release)) {
	t.Helper()
	r := &release.Release{
		Name: name, Namespace: namespace, Version: revision,
		Info:  &release.Info{Status: status, FirstDeployed: helmtime.Now(), LastDeployed: helmtime.Now()},
		Chart: &helmchart.Chart{Metadata: &helmchart.Metadata{Name: chart, Version: "1.2.3", APIVersion: "v2"}, Values: map[string]any{}},
	}
	if change != nil {
		change(r)
	}
	client, err := kubernetes.NewForConfig(apiREST)
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("sh.helm.release.v1.%s.v%d", name, revision)
	if err := driver.NewSecrets(client.CoreV1().Secrets(namespace)).Create(key, r); err != nil {
		t.Fatal(err)
	}
}

// migrator is somebody's whom the audit log tells from others.
func migrator(t *testing.T, o migrate.Options) (m *migrate.Migrator, user string) {
	t.Helper()
	user = "migrator-" + uuid.NewString()
	config := rest.CopyConfig(apiREST)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	config.QPS, config.Burst = 50, 100 // as the command's
	m, err := migrate.New(config, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, user
}

// TestMigrateManyReleases: of 200 releases in 50 namespaces, each with several
// revisions, one is an old collector's. It is found within seconds, and of the
// others nothing is read but what says of which chart they are.
func TestMigrateManyReleases(t *testing.T) {
	const namespaces, each = 50, 4
	for range namespaces {
		ns := newNamespace(t)
		for i := range each {
			name := fmt.Sprintf("release-%d", i)
			padding := func(r *release.Release) { r.Manifest = strings.Repeat("# a manifest of some length\n", 5000) }
			recorded(t, ns, name, "nginx", 1, release.StatusSuperseded, padding)
			recorded(t, ns, name, "nginx", 2, release.StatusDeployed, padding)
			recorded(t, ns, name, "nginx", 3, release.StatusFailed, padding)
		}
	}
	old := newNamespace(t)
	recorded(t, old, "collector", "k8s-metacollector", 1, release.StatusPendingInstall, nil)
	m, user := migrator(t, migrate.Options{})
	began := time.Now()
	s, err := m.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%d releases took %s", namespaces*each, took.Round(time.Millisecond))
	if took > 20*time.Second {
		t.Errorf("that took %s, want seconds", took)
	}
	found := map[string]bool{}
	for _, p := range s.Plans {
		found[p.Old.String()] = true
	}
	if !found[old+"/collector"] {
		t.Errorf("the old release is not found: %v", found)
	}
	for name, n := range secretsRead(t, user) {
		if n > 1 || !strings.HasSuffix(name, ".v2") && !strings.HasPrefix(name, old+"/") {
			t.Errorf("Secret %s was read %d times: want the deployed revision only, once", name, n)
		}
	}
}

// secretsRead is which Secrets were read whole by a user, by the API server's
// audit log. A list is an error if it has no limit, or no label.
func secretsRead(t *testing.T, user string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(plane.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]int{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var e struct {
			Stage, Verb, RequestURI string
			ImpersonatedUser        struct{ Username string }
			ObjectRef               struct{ Resource, Namespace, Name string }
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.ImpersonatedUser.Username != user || e.Stage != "ResponseComplete" || e.ObjectRef.Resource != "secrets" {
			continue
		}
		switch e.Verb {
		case "get":
			read[e.ObjectRef.Namespace+"/"+e.ObjectRef.Name]++
		case "list":
			u, err := url.Parse(e.RequestURI)
			if err != nil {
				t.Fatal(err)
			}
			selector := u.Query().Get("labelSelector")
			if selector != "metawire.dev/migration" && (selector != "owner=helm" || u.Query().Get("limit") == "") {
				t.Errorf("all Secrets are read: %s", e.RequestURI)
			}
		default:
			t.Errorf("a survey does not %s %s", e.Verb, e.RequestURI)
		}
	}
	return read
}
