package oldcharts

import (
	"context"
	"fmt"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// Helm is Helm in a namespace of the cluster of a kubeconfig, with its cache in
// that directory.
func Helm(kubeconfig, cache, namespace string) (*action.Configuration, error) {
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig, flags.CacheDir, flags.Namespace = &kubeconfig, &cache, &namespace
	c := &action.Configuration{}
	if err := c.Init(flags, namespace, "secret", func(string, ...any) {}); err != nil {
		return nil, fmt.Errorf("helm in namespace %q: %w", namespace, err)
	}
	return c, nil
}

// Install installs an old chart; with its hooks, which ask the service of an
// inventory, and waiting for its pods, if that is wanted.
func Install(ctx context.Context, helm *action.Configuration, chart, release, namespace string, values map[string]any, hooks, wait bool) error {
	c, err := Load(chart)
	if err != nil {
		return err
	}
	i := action.NewInstall(helm)
	i.ReleaseName, i.Namespace, i.CreateNamespace = release, namespace, true
	i.Wait, i.DisableHooks, i.Timeout = wait, !hooks, 2*time.Minute
	if _, err := i.RunWithContext(ctx, c, values); err != nil {
		return fmt.Errorf("install release %s of chart %s: %w", release, chart, err)
	}
	return nil
}
