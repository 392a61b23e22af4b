package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	helmrelease "helm.sh/helm/v3/pkg/release"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/tests/e2e/release"
	falcoimage "github.com/metawire/metawire/tests/falco/image"
)

const (
	releaseName = "metawire"
	namespace   = "metawire"
	// demoLabel is on the release and the namespaces that the demo has made.
	demoLabel = "metawire-demo"
)

func (d *demo) release(s *site) (*release.Release, error) {
	return release.New(s.kubeconfig, filepath.Join("bin", "home", "kube"), namespace, releaseName)
}

// helm installs the chart, or upgrades the demo's own release. The SDK is used,
// since to compile the helm command takes minutes; what is printed is the
// command that does the same. A zero image is the chart's.
func (d *demo) helm(ctx context.Context, s *site, image release.Image, policy string) error {
	r, err := d.release(s)
	if err != nil {
		return err
	}
	current, err := r.Current()
	if err != nil {
		return err
	}
	if current != nil && current.Labels[demoLabel] == "" {
		return fmt.Errorf("there is a release %s in namespace %s that the demo has not made: it leaves it alone", releaseName, namespace)
	}
	if current != nil && current.Info.Status != helmrelease.StatusDeployed { // interrupted
		if err := r.Uninstall(patience); err != nil {
			return err
		}
		current = nil
	}
	values, set, err := d.values(ctx, s, image, policy)
	if err != nil {
		return err
	}
	command := "install " + releaseName + " charts/metawire -n " + namespace + " --create-namespace --wait"
	if current != nil {
		command = "upgrade " + releaseName + " charts/metawire -n " + namespace + " --wait"
	}
	err = d.screen.step("$ helm "+command+set, func() error {
		if current != nil {
			_, err := r.Upgrade(ctx, values, patience)
			return err
		}
		if err := ensureNamespace(ctx, s.api, namespace); err != nil {
			return err
		}
		_, err := r.Install(ctx, values, map[string]string{demoLabel: "true"}, patience)
		return err
	})
	if err != nil {
		return errors.Join(err, d.explain(ctx, s, namespace))
	}
	return nil
}

// values are the release's, and the flags that say the same.
func (d *demo) values(ctx context.Context, s *site, image release.Image, policy string) (values map[string]any, set string, err error) {
	values = map[string]any{}
	add := func(flag string, settings ...string) { set += " \\\n      " + flag + " " + strings.Join(settings, ",") }
	if image.Repository != "" {
		values["image"] = image.Values(policy)
		add("--set", "image.repository="+image.Repository, "image.tag="+image.Tag, "image.pullPolicy="+policy)
	}
	if policy == "Never" { // our own cluster: it reaches no registry, and we are an endpoint that it reaches
		values["webhook"] = map[string]any{"plugin": map[string]any{"source": "preinstalled", "path": falcoimage.LibraryPath}}
		add("--set", "webhook.plugin.source=preinstalled", "webhook.plugin.path="+falcoimage.LibraryPath)
		address, err := inventoryAddress(ctx, s)
		if err != nil {
			return nil, "", err
		}
		const schedule = "@yearly" // else at any time, when there is no endpoint
		endpoint := "http://" + address + "/ingest"
		values["clusterID"] = clusterID
		values["inventory"] = map[string]any{"enabled": true, "endpoint": endpoint, "insecure": true, "schedule": schedule}
		add("--set", "clusterID="+clusterID, "inventory.enabled=true", "inventory.endpoint="+endpoint, "inventory.insecure=true", "inventory.schedule="+schedule)
	}
	if id := image.ID[:min(len(image.ID), 12)]; id != "" {
		// Another image under the same tag must make other pods.
		values["collector"] = map[string]any{"podAnnotations": map[string]any{"image": id}}
		add("--set-string", "collector.podAnnotations.image="+id)
	}
	return values, set, nil
}

// ensureNamespace creates a namespace with the demo's label. One that is there
// keeps its labels.
func ensureNamespace(ctx context.Context, api kubernetes.Interface, name string) error {
	_, err := api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{demoLabel: "true"}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

// explain returns why the pods of a namespace do not run, as far as they say.
func (d *demo) explain(ctx context.Context, s *site, namespace string) error {
	pods, err := s.api.CoreV1().Pods(namespace).List(context.WithoutCancel(ctx), metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("look for the reason: %w", err)
	}
	var reasons []error
	for _, p := range pods.Items {
		why := []string{string(p.Status.Phase), p.Status.Message}
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil {
				why = append(why, w.Reason, w.Message)
			}
			if t := c.LastTerminationState.Terminated; t != nil {
				why = append(why, fmt.Sprintf("ended with %d", t.ExitCode))
			}
		}
		reasons = append(reasons, fmt.Errorf("pod %s/%s: %s", namespace, p.Name, strings.Join(why, " ")))
	}
	return errors.Join(reasons...)
}
