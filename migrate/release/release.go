// Package release is all that Metawire does with Helm: it reads the releases that
// a cluster has, and installs, tests and removes one of its own chart, which is
// embedded. It decides nothing.
package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/cli/values"
	helmgetter "helm.sh/helm/v3/pkg/getter"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/charts"
)

// Release is a release of the embedded chart, which may not be there yet.
type Release struct {
	Name, Namespace string

	config *action.Configuration
	chart  *chart.Chart
}

// New returns the release of that name. It does not contact the API server.
func New(config *rest.Config, namespace, name string) (*Release, error) {
	r := &Release{Name: name, Namespace: namespace, config: &action.Configuration{}}
	if err := r.config.Init(newGetter(config, namespace), namespace, "secret", func(string, ...any) {}); err != nil {
		return nil, fmt.Errorf("release %s in namespace %q: %w", name, namespace, err)
	}
	var err error
	r.chart, err = Chart()
	return r, err
}

// Version is the version of the embedded chart.
func (r *Release) Version() string { return r.chart.Metadata.Version }

// Render returns the manifest of what Install would make, and that of what Test
// would. It asks the API server for its version and what it serves; nothing is
// sent there, and values that the chart refuses are an error.
func (r *Release) Render(ctx context.Context, values map[string]any) (manifest, tests string, err error) {
	served, err := r.config.RESTClientGetter.ToDiscoveryClient()
	if err != nil {
		return "", "", err
	}
	version, err := served.ServerVersion()
	if err != nil {
		return "", "", fmt.Errorf("ask the API server for its version: %w", err)
	}
	// Not with access to the objects: Helm stops at the first that is in the way, or
	// that the caller may not read.
	i := action.NewInstall(&action.Configuration{Log: r.config.Log})
	i.ReleaseName, i.Namespace, i.DryRun, i.ClientOnly = r.Name, r.Namespace, true, true
	i.KubeVersion = &chartutil.KubeVersion{Version: version.GitVersion, Major: version.Major, Minor: version.Minor}
	if i.APIVersions, err = action.GetVersionSet(served); err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return "", "", fmt.Errorf("ask what the API server serves: %w", err)
	}
	rendered, err := i.RunWithContext(ctx, r.chart, values)
	if err != nil {
		return "", "", fmt.Errorf("render the chart: %w", err)
	}
	for _, h := range rendered.Hooks {
		if slices.Contains(h.Events, release.HookTest) {
			tests += "---\n" + h.Manifest + "\n"
		}
	}
	return rendered.Manifest, tests, nil
}

// Status is that of the newest revision: deployed, failed, pending-install, ...;
// empty if there is none. Its labels are the release's.
func (r *Release) Status() (status string, labels map[string]string, err error) {
	last, err := r.config.Releases.Last(r.Name)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
		return "", nil, nil
	case err != nil:
		return "", nil, fmt.Errorf("look for release %s in namespace %q: %w", r.Name, r.Namespace, err)
	}
	return last.Info.Status.String(), last.Labels, nil
}

// Install installs the chart, into a namespace that is there. It blocks until all
// pods are ready, the timeout has passed or ctx ends; what was made stays when it
// fails. The labels are the release's own.
func (r *Release) Install(ctx context.Context, values map[string]any, labels map[string]string, timeout time.Duration) error {
	i := action.NewInstall(r.config)
	i.ReleaseName, i.Namespace, i.Labels = r.Name, r.Namespace, labels
	i.Wait, i.WaitForJobs, i.Timeout = true, true, timeout
	if _, err := i.RunWithContext(ctx, r.chart, values); err != nil {
		return fmt.Errorf("install release %s in namespace %q: %w", r.Name, r.Namespace, err)
	}
	return nil
}

// Test runs the chart's tests, at most for the timeout. What their pods say goes
// to log, also when they fail. Pods that have passed are removed.
func (r *Release) Test(ctx context.Context, log io.Writer, timeout time.Duration) error {
	t := action.NewReleaseTesting(r.config)
	t.Namespace, t.Timeout = r.Namespace, timeout
	tested, err := t.Run(r.Name)
	if tested != nil {
		err = errors.Join(err, t.GetPodLogs(log, tested))
	}
	if err != nil {
		return fmt.Errorf("test release %s in namespace %q: %w", r.Name, r.Namespace, err)
	}
	return r.removeTests(ctx, tested)
}

// Uninstall removes the release. It blocks until its objects are gone or the
// timeout has passed; no release is no error. Pods that the chart's tests have
// left go too.
func (r *Release) Uninstall(ctx context.Context, timeout time.Duration) error {
	last, err := r.config.Releases.Last(r.Name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for release %s in namespace %q: %w", r.Name, r.Namespace, err)
	}
	u := action.NewUninstall(r.config)
	u.IgnoreNotFound, u.Wait, u.Timeout = true, true, timeout
	if _, err := u.Run(r.Name); err != nil {
		return fmt.Errorf("uninstall release %s in namespace %q: %w", r.Name, r.Namespace, err)
	}
	return r.removeTests(ctx, last)
}

// removeTests deletes the pods of helm test, which Helm leaves.
func (r *Release) removeTests(ctx context.Context, of *release.Release) error {
	api, err := r.config.KubernetesClientSet()
	if err != nil {
		return err
	}
	for _, h := range of.Hooks {
		if h.Kind != "Pod" || !slices.Contains(h.Events, release.HookTest) {
			continue
		}
		err := api.CoreV1().Pods(r.Namespace).Delete(ctx, h.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete test pod %s/%s: %w", r.Namespace, h.Name, err)
		}
	}
	return nil
}

// Chart returns the embedded chart.
func Chart() (*chart.Chart, error) {
	fsys, err := charts.Metawire()
	if err != nil {
		return nil, err
	}
	var files []*loader.BufferedFile
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		files = append(files, &loader.BufferedFile{Name: name, Data: data})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the embedded chart: %w", err)
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("load the embedded chart: %w", err)
	}
	return c, nil
}

// Values reads values as helm takes them: from files, and as key=value, which win.
func Values(files, set []string) (map[string]any, error) {
	o := values.Options{ValueFiles: files, Values: set}
	all, err := o.MergeValues(helmgetter.Providers{})
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	return all, nil
}
