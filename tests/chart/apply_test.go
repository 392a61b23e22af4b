package chart_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/internal/check"
)

// TestApply: the rendered chart, applied with kubectl, is whole without a hook;
// applied again it changes nothing, not even what the daemons filled in since,
// and nobody who compares it with the cluster, as Argo CD does, sees a
// difference.
func TestApply(t *testing.T) {
	l := newLife(t)
	for name, values := range map[string]string{
		"Deployment": `{clusterID: x, inventory: {enabled: true, endpoint: "https://e", changes: true}, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]}`,
		"CronJob": `{clusterID: x, inventory: {enabled: true, endpoint: "https://e", mode: CronJob, schedule: "@daily"}, networkPolicy: {enabled: true}, ipFamilyPolicy: SingleStack,
			collector: {podSecurityContext: {runAsUser: null}, updateStrategy: {type: Recreate}}}`,
	} {
		manifest := withoutTests(t, values)
		for _, flags := range [][]string{nil, {"--server-side"}} {
			t.Run(name+strings.Join(flags, ""), func(t *testing.T) {
				apply := append([]string{"apply", "-f", "-"}, flags...)
				l.run(t, manifest, apply...)
				l.fill(t)
				l.mayWhatTheyNeed(t)
				if families := l.run(t, "", "get", "services", "-o", "jsonpath={.items[*].spec.ipFamilies}"); (families == `["IPv6","IPv4"] ["IPv6","IPv4"]`) != (name == "Deployment") {
					t.Errorf("the Services are of the families %s", families)
				}
				before := l.versions(t, manifest)
				l.run(t, manifest, apply...)
				l.checkFilled(t)
				if d := cmp.Diff(before, l.versions(t, manifest)); d != "" {
					t.Errorf("applied again, objects changed (-before +after):\n%s", d)
				}
				if text, err := l.try(t.Context(), manifest, append([]string{"diff", "-f", "-"}, flags...)...); err != nil {
					t.Errorf("compared with the cluster: %v\n%s", err, text)
				}
				l.run(t, manifest, "delete", "-f", "-")
				l.eventually(t, func() error {
					_, err := l.try(t.Context(), "", "get", "configmap/metawire-inventory-index")
					if err == nil {
						return fmt.Errorf("what was made by the daemons is still there")
					}
					return nil
				})
			})
		}
	}
}

// withoutTests is what helm template --skip-tests prints.
func withoutTests(t *testing.T, values string) string {
	t.Helper()
	files, _ := mustRender(t, loadChart(t), values)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != "NOTES.txt" && !strings.HasPrefix(name, "templates/tests/") {
			b.WriteString("---\n" + files[name] + "\n")
		}
	}
	return b.String()
}

// versions returns the generation, or the resourceVersion of an object without
// one, of every object of the manifest: controllers write a status too.
func (k kubectlIn) versions(t *testing.T, manifest string) map[string]string {
	t.Helper()
	all := map[string]string{}
	text := k.run(t, manifest, "get", "-f", "-", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation} {.metadata.resourceVersion}{"\n"}{end}`)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 {
			all[f[0]] = f[1]
		}
	}
	return all
}

// run returns what kubectl prints; an error ends the test.
func (k kubectlIn) run(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := k.try(t.Context(), input, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (k kubectlIn) try(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.path, append([]string{"--kubeconfig=" + k.kubeconfig, "--cache-dir=" + k.cache, "--namespace=" + namespace}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out), err
}

// mayWhatTheyNeed: metawire check asks the API server for what each daemon needs,
// and each may.
func (l *life) mayWhatTheyNeed(t *testing.T) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	target := &check.Target{Config: config, Namespace: namespace, Version: "dev"}
	for _, rt := range types {
		target.Types = append(target.Types, check.Type{Group: rt.Group, Resource: rt.Resource, Streamed: rt.Streamed})
	}
	l.eventually(t, func() error { // the authorizer follows the roles
		var found check.Result
		check.Run(t.Context(), target, func(r check.Result) {
			if r.ID == "permissions" {
				found = r
			}
		})
		if found.Outcome != check.OK {
			return fmt.Errorf("the permissions are %s: %q", found.Outcome, found.Details)
		}
		return nil
	})
}
