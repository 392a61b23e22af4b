package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
)

// namespaceObject is what helm install --create-namespace makes, and the
// standard that all pods in it keep to.
const namespaceObject = `---
apiVersion: v1
kind: Namespace
metadata:
  name: metawire
  labels:
    pod-security.kubernetes.io/enforce: restricted
`

// oldestKubernetes is the oldest that the chart is for; what is rendered for it
// does for all.
const oldestKubernetes = "v1.31.0"

// manifests are for kubectl apply: all objects of a bare install, and, since it
// needs the definition of its kind, the ServiceMonitor apart.
func manifests(ctx context.Context, r *release) error {
	bare, err := r.render(ctx, nil)
	if err != nil {
		return err
	}
	if err := r.writeManifest("metawire.yaml", namespaceObject+bare); err != nil {
		return err
	}
	monitored, err := r.render(ctx, map[string]any{"monitoring": map[string]any{"serviceMonitor": map[string]any{"enabled": true}}})
	if err != nil {
		return err
	}
	for object := range strings.SplitSeq(monitored, "\n---\n") {
		if regexp.MustCompile(`(?m)^kind: ServiceMonitor$`).MatchString(object) {
			return r.writeManifest("metawire-servicemonitor.yaml", "---\n"+object+"\n")
		}
	}
	return fmt.Errorf("the chart renders no ServiceMonitor with monitoring.serviceMonitor.enabled")
}

// render is helm template of the packaged chart, without the tests, which only
// Helm runs.
func (r *release) render(ctx context.Context, values map[string]any) (string, error) {
	chart, err := loader.LoadFile(r.file(r.chartFile()))
	if err != nil {
		return "", err
	}
	i := action.NewInstall(&action.Configuration{})
	if i.KubeVersion, err = chartutil.ParseKubeVersion(oldestKubernetes); err != nil {
		return "", err
	}
	i.ReleaseName, i.Namespace = "metawire", "metawire"
	i.DryRun, i.ClientOnly, i.DisableHooks = true, true, true
	rendered, err := i.RunWithContext(ctx, chart, values)
	if err != nil {
		return "", fmt.Errorf("render the chart: %w", err)
	}
	return rendered.Manifest, nil
}

func (r *release) writeManifest(name, text string) error {
	head := fmt.Sprintf("# Metawire %s: kubectl apply --server-side -f %s\n", r.version, name)
	return os.WriteFile(r.file(name), []byte(head+text), 0o644)
}
