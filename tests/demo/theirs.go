package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/subscriber"
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

func (t *theirs) install(ctx context.Context, s *site) (subscriber.Target, error) {
	var image release.Image
	if t.image != "" {
		var err error
		if image, err = release.ParseImage(t.image); err != nil {
			return subscriber.Target{}, err
		}
	} else {
		t.screen.line("  The cluster must be able to pull the chart's image. To use your own: make image, push")
		t.screen.line("  " + archive + " to a registry, and IMAGE=registry/name:tag make demo.")
	}
	if err := t.helm(ctx, s, image, "IfNotPresent"); err != nil {
		return subscriber.Target{}, err
	}
	return s.reach(ctx)
}

// falco says what would be shown: the image of the stand-in is not there.
func (t *theirs) falco(context.Context, *site) error {
	t.screen.line("  A Falco that is made from now on is wired by itself: kubectl rollout restart yours, then metawire explain pod.")
	return nil
}

func (t *theirs) next(s *site, target subscriber.Target) []string {
	return []string{
		"It goes on running. Try:", "",
		"  bin/metawire " + strings.Join(s.watch(target), " "),
		"  bin/metawire check",
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
