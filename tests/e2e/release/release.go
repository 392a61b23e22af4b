// Package release puts the project's chart into a cluster through the Helm SDK,
// as the helm command does, for the end-to-end tests and the demo. It has no
// values of its own.
package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	ours "github.com/metawire/metawire/migrate/release"
)

// Release is a release of the chart, which may not be there yet.
type Release struct {
	name, namespace string
	config          *action.Configuration
}

// New returns the release of that name in the cluster of a kubeconfig's current
// context. It does not contact the API server. What that server offers is
// cached in the directory cache.
func New(kubeconfig, cache, namespace, name string) (*Release, error) {
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig, flags.CacheDir, flags.Namespace = &kubeconfig, &cache, &namespace
	r := &Release{name: name, namespace: namespace, config: &action.Configuration{}}
	if err := r.config.Init(flags, namespace, "secret", func(string, ...any) {}); err != nil {
		return nil, fmt.Errorf("release %s in namespace %q: %w", name, namespace, err)
	}
	return r, nil
}

// Current returns the newest revision, nil if there is none.
func (r *Release) Current() (*release.Release, error) {
	current, err := r.config.Releases.Last(r.name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read release %s in namespace %q: %w", r.name, r.namespace, err)
	}
	return current, nil
}

// Install is helm install --create-namespace --wait. It blocks until all pods
// are ready, the timeout has passed or ctx ends; what was made stays when it
// fails. The labels are the release's own.
func (r *Release) Install(ctx context.Context, values map[string]any, labels map[string]string, timeout time.Duration) (*release.Release, error) {
	chart, err := ours.Chart()
	if err != nil {
		return nil, err
	}
	i := action.NewInstall(r.config)
	i.ReleaseName, i.Namespace, i.CreateNamespace, i.Labels = r.name, r.namespace, true, labels
	i.Wait, i.Timeout = true, timeout
	installed, err := i.RunWithContext(ctx, chart, values)
	if err != nil {
		return nil, fmt.Errorf("helm install %s in namespace %q: %w", r.name, r.namespace, err)
	}
	return installed, nil
}

// Upgrade is helm upgrade --wait, and blocks as Install does. The values
// replace the former ones.
func (r *Release) Upgrade(ctx context.Context, values map[string]any, timeout time.Duration) (*release.Release, error) {
	chart, err := ours.Chart()
	if err != nil {
		return nil, err
	}
	u := action.NewUpgrade(r.config)
	u.Namespace, u.ResetValues = r.namespace, true
	u.Wait, u.Timeout = true, timeout
	upgraded, err := u.RunWithContext(ctx, r.name, chart, values)
	if err != nil {
		return nil, fmt.Errorf("helm upgrade %s in namespace %q: %w", r.name, r.namespace, err)
	}
	return upgraded, nil
}

// Test is helm test --logs. The log of the test pods goes to log also when they
// fail.
func (r *Release) Test(log io.Writer, timeout time.Duration) error {
	t := action.NewReleaseTesting(r.config)
	t.Namespace, t.Timeout = r.namespace, timeout
	tested, err := t.Run(r.name)
	if tested != nil {
		err = errors.Join(err, t.GetPodLogs(log, tested))
	}
	if err != nil {
		return fmt.Errorf("helm test %s in namespace %q: %w", r.name, r.namespace, err)
	}
	return nil
}

// Uninstall is helm uninstall --wait. It blocks until the release's objects are
// gone or the timeout has passed; no release is no error. As with the helm
// command, pods of Test stay.
func (r *Release) Uninstall(timeout time.Duration) error {
	u := action.NewUninstall(r.config)
	u.IgnoreNotFound, u.Wait, u.Timeout = true, true, timeout
	if _, err := u.Run(r.name); err != nil {
		return fmt.Errorf("helm uninstall %s in namespace %q: %w", r.name, r.namespace, err)
	}
	return nil
}
