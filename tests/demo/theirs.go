package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/metawire/metawire/tests/e2e/release"
)

// theirs is the place that KUBECONFIG names. The demo touches nothing there
// that it has not made.
type theirs struct{ *demo }

func (t *theirs) prepare(ctx context.Context) (*site, error) {
	s, err := open(ctx, "")
	if err != nil {
		return nil, err
	}
	if s.node == "" {
		return nil, errors.New("the cluster of KUBECONFIG has no ready node without taints")
	}
	t.screen.line(t.screen.paint(bold, "• ") + "the cluster of KUBECONFIG, " + s.config.Host + ", node " + s.node)
	return s, t.together(ctx, t.programs("metawire"))
}

func (t *theirs) install(ctx context.Context, s *site) (string, error) {
	var image release.Image
	if t.image != "" {
		var err error
		if image, err = release.ParseImage(t.image); err != nil {
			return "", err
		}
	} else {
		t.screen.line("  The cluster must be able to pull the chart's image. To use your own: make image, push")
		t.screen.line("  " + archive + " to a registry, and IMAGE=registry/name:tag make demo.")
	}
	if err := t.helm(ctx, s, image, "IfNotPresent"); err != nil {
		return "", err
	}
	if err := s.grant(ctx); err != nil {
		return "", err
	}
	return t.forward(ctx, s)
}

// forward forwards a local port to a collector, as kubectl port-forward does,
// until ctx ends.
func (t *theirs) forward(ctx context.Context, s *site) (string, error) {
	pods, err := s.api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/component=collector", FieldSelector: "status.phase=Running",
	})
	if err != nil || len(pods.Items) == 0 {
		return "", fmt.Errorf("find a collector in namespace %s: %d pods run, %w", namespace, len(pods.Items), err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(s.config)
	if err != nil {
		return "", fmt.Errorf("port-forward: %w", err)
	}
	url := s.api.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).
		Name(pods.Items[0].Name).SubResource("portforward").URL()
	ready := make(chan struct{})
	f, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
		[]string{"0:" + streamPort}, ctx.Done(), ready, io.Discard, io.Discard)
	if err != nil {
		return "", fmt.Errorf("port-forward: %w", err)
	}
	failed := make(chan error, 1)
	go func() { failed <- f.ForwardPorts() }()
	select {
	case err := <-failed:
		return "", fmt.Errorf("port-forward to pod %s: %w", pods.Items[0].Name, err)
	case <-ready:
	}
	ports, err := f.GetPorts()
	if err != nil {
		return "", fmt.Errorf("port-forward: %w", err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), nil
}

func (t *theirs) next(s *site, _ string) []string {
	return []string{
		"It goes on running. Try:", "",
		"  kubectl -n " + namespace + " port-forward service/" + collectorName + " " + streamPort,
		"  bin/metawire " + strings.Join(s.watch("localhost:"+streamPort), " "),
		"  make demo-down", "",
	}
}

// down uninstalls the demo's release and deletes the demo's namespaces.
func (t *theirs) down(ctx context.Context) error {
	s, err := open(ctx, "")
	if err != nil {
		return err
	}
	r, err := t.release(s)
	if err != nil {
		return err
	}
	current, err := r.Current()
	if err != nil {
		return err
	}
	if current != nil && current.Labels[demoLabel] != "" {
		if err := t.screen.step("$ helm uninstall "+releaseName+" -n "+namespace, func() error { return r.Uninstall(patience) }); err != nil {
			return err
		}
	}
	namespaces := s.api.CoreV1().Namespaces()
	made, err := namespaces.List(ctx, metav1.ListOptions{LabelSelector: demoLabel})
	if err != nil {
		return fmt.Errorf("list the demo's namespaces: %w", err)
	}
	for _, ns := range made.Items {
		if err := t.screen.step("$ kubectl delete namespace "+ns.Name, func() error { return remove(ctx, s, ns) }); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes a namespace and blocks until it is gone.
func remove(ctx context.Context, s *site, ns corev1.Namespace) error {
	namespaces := s.api.CoreV1().Namespaces()
	if err := namespaces.Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete namespace %s: %w", ns.Name, err)
	}
	return until(ctx, func(ctx context.Context) (bool, error) {
		_, err := namespaces.Get(ctx, ns.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
}

// until calls done again and again until it returns true or an error. It blocks
// for at most patience.
func until(ctx context.Context, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %s", patience))
	defer cancel()
	for {
		ok, err := done(ctx)
		if ok || err != nil {
			return err
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return context.Cause(ctx)
		}
	}
}
