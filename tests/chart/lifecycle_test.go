package chart_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/action"
	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// TestLifecycle: on a real API server every chart that was released, and this
// one with other values, is installed, filled by the daemons, upgraded to this
// chart, rolled back and uninstalled; what the daemons filled survives, and
// nothing stays.
func TestLifecycle(t *testing.T) {
	const (
		before = `{clusterID: x, inventory: {enabled: true, endpoint: "https://e", changes: true}}`
		after  = `{clusterID: x, inventory: {enabled: true, endpoint: "https://f", mode: CronJob, schedule: "@daily"},
			networkPolicy: {enabled: true}, commonLabels: {a: b}, collector: {replicas: 3, podLabels: {c: d}}, webhook: {replicas: 1}}`
	)
	l := newLife(t)
	empty := l.objects(t)
	for name, old := range releasedCharts(t) {
		t.Run(name, func(t *testing.T) {
			l.install(t, old, before)
			l.fill(t)
			installed := l.objects(t)

			l.upgrade(t, loadChart(t), after)
			l.checkFilled(t)
			upgraded := l.objects(t)
			for object, want := range map[string]bool{
				"cronjobs.batch metawire/metawire-inventory":                      true,
				"networkpolicies.networking.k8s.io metawire/metawire-egress":      true,
				"poddisruptionbudgets.policy metawire/metawire-collector":         true,
				"poddisruptionbudgets.policy metawire/metawire-webhook":           false,
				"clusterroles.rbac.authorization.k8s.io metawire-inventory-types": true,
			} {
				if upgraded[object] != want {
					t.Errorf("after the upgrade: %s is there: %t, want %t", object, upgraded[object], want)
				}
			}

			l.rollback(t)
			l.checkFilled(t)
			if d := cmp.Diff(installed, l.objects(t)); d != "" {
				t.Errorf("after the rollback there are other objects (-installed +rolled back):\n%s", d)
			}

			l.uninstall(t)
			l.eventually(t, func() error {
				if d := cmp.Diff(empty, l.objects(t)); d != "" {
					return fmt.Errorf("the uninstall leaves (-before the install +after):\n%s", d)
				}
				return nil
			})
		})
	}
}

// releasedCharts are the packages in released/, and the chart of the working
// tree. A version of CHANGELOG.md without its package is an error, but the
// newest, which may be about to be released.
func releasedCharts(t *testing.T) map[string]*helmchart.Chart {
	t.Helper()
	now := loadChart(t)
	all := map[string]*helmchart.Chart{"this chart": now}
	packages, err := filepath.Glob("released/*.tgz")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		ch, err := loader.Load(p)
		if err != nil {
			t.Fatal(err)
		}
		all[ch.Metadata.Version] = ch
	}
	changelog, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^## \[(\d\S*)\]`).FindAllStringSubmatch(string(changelog), -1) {
		if all[m[1]] == nil && m[1] != now.Metadata.Version {
			t.Errorf("%s was released, but its package is not in tests/chart/released", m[1])
		}
	}
	if len(packages) == 0 {
		t.Log("no chart has been released: upgrades are from this chart with other values alone")
	}
	return all
}

// A life is that of one release after another, in a cluster without nodes.
type life struct {
	config *action.Configuration
	kubectlIn
}

func newLife(t *testing.T) *life {
	t.Helper()
	c := startControlPlane(t, true)
	k := kubectlIn{filepath.Join(c.Bin(), "kubectl"), c.Kubeconfig(), t.TempDir()}
	k.run(t, "", "create", "namespace", namespace)
	k.run(t, "", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
	k.eventually(t, func() error { // made by controllers, and none of the release
		_, err := k.try(t.Context(), "", "get", "serviceaccount/default", "configmap/kube-root-ca.crt")
		return err
	})
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig, flags.CacheDir, flags.Namespace = &k.kubeconfig, &k.cache, new(namespace)
	l := &life{&action.Configuration{}, k}
	if err := l.config.Init(flags, namespace, "secret", func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *life) install(t *testing.T, ch *helmchart.Chart, values string) {
	t.Helper()
	i := action.NewInstall(l.config)
	i.ReleaseName, i.Namespace = release, namespace
	if _, err := i.RunWithContext(t.Context(), ch, parsed(t, values)); err != nil {
		t.Fatal(err)
	}
}

func (l *life) upgrade(t *testing.T, ch *helmchart.Chart, values string) {
	t.Helper()
	u := action.NewUpgrade(l.config)
	u.Namespace, u.ResetValues = namespace, true
	if _, err := u.RunWithContext(t.Context(), release, ch, parsed(t, values)); err != nil {
		t.Fatal(err)
	}
}

func (l *life) rollback(t *testing.T) {
	t.Helper()
	if err := action.NewRollback(l.config).Run(release); err != nil {
		t.Fatal(err)
	}
}

func (l *life) uninstall(t *testing.T) {
	t.Helper()
	if _, err := action.NewUninstall(l.config).Run(release); err != nil {
		t.Fatal(err)
	}
}

func parsed(t *testing.T, values string) map[string]any {
	t.Helper()
	v, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// kubectlIn runs kubectl in the release's namespace.
type kubectlIn struct{ path, kubeconfig, cache string }

// filled are the objects that the daemons fill, and what they have then.
var filled = map[string]string{
	"secret/metawire-ca":                               `{"data":{"ca.crt":"ZmlsbGVk"}}`,
	"secret/metawire-tickets":                          `{"data":{"key":"ZmlsbGVk"}}`,
	"secret/metawire-inventory-redaction":              `{"data":{"key":"ZmlsbGVk"}}`,
	"configmap/metawire-inventory-report":              `{"data":{"report.json":"ZmlsbGVk"}}`,
	"lease/metawire-inventory":                         `{"spec":{"holderIdentity":"ZmlsbGVk"}}`,
	"mutatingwebhookconfiguration/zz-metawire-webhook": `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="}]`,
}

// fill writes what the daemons do, and makes what they make.
func (k kubectlIn) fill(t *testing.T) {
	t.Helper()
	for object, content := range filled {
		kind := "merge"
		if strings.HasPrefix(content, "[") {
			kind = "json"
		}
		k.run(t, "", "patch", object, "--type", kind, "--patch", content, "--field-manager", "collector")
	}
	uid := k.run(t, "", "get", "lease/metawire-inventory", "-o", "jsonpath={.metadata.uid}")
	k.run(t, fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: metawire-inventory-index, namespace: %s,
		ownerReferences: [{apiVersion: coordination.k8s.io/v1, kind: Lease, name: metawire-inventory, uid: %s}]}}`, namespace, uid), "create", "-f", "-")
}

func (k kubectlIn) checkFilled(t *testing.T) {
	t.Helper()
	for object := range filled {
		if text := k.run(t, "", "get", object, "-o", "json"); !strings.Contains(text, `"ZmlsbGVk"`) && !strings.Contains(text, `"LS0tLS1CRUdJTi`) {
			t.Errorf("%s has lost what was filled in:\n%s", object, text)
		}
	}
}

// objects lists the objects of every kind that the API server has, of all
// namespaces; but Helm's own records and what Kubernetes makes beside objects,
// when it likes.
func (k kubectlIn) objects(t *testing.T) map[string]bool {
	t.Helper()
	kinds := strings.Fields(k.run(t, "", "api-resources", "--verbs", "list,delete", "-o", "name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool {
		return slices.Contains([]string{"events", "events.events.k8s.io", "pods", "replicasets.apps", "controllerrevisions.apps", "endpoints", "endpointslices.discovery.k8s.io", "ipaddresses.networking.k8s.io"}, kind)
	})
	all := map[string]bool{}
	for _, kind := range kinds {
		text := k.run(t, "", "get", kind, "-A", "-o", `jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}`)
		for name := range strings.FieldsSeq(text) {
			if !strings.Contains(name, "/sh.helm.release.v1.") {
				all[kind+" "+strings.TrimPrefix(name, "/")] = true
			}
		}
	}
	return all
}

// eventually tries until there is no error, for two minutes at most.
func (k kubectlIn) eventually(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(errors.Join(ctx.Err(), err))
		case <-time.After(500 * time.Millisecond):
		}
	}
}
