package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/version"
	"github.com/metawire/metawire/internal/wiring"
)

func newWebhook() *cobra.Command {
	w := webhook{}
	c := &cobra.Command{
		Use:   "webhook --namespace NAME",
		Short: "Require the webhook to wire a Falco pod that is created",
		Long: `Ask the API server to create a pod with a Falco container, in a dry run: it goes
through admission as any pod does, and none comes to be. Passes if the webhook has
wired it. Tries again until the timeout: just after an install the API server may
not know the webhook's certificate yet.`,
		Example: "  probe webhook --namespace metawire",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&w.namespace, "namespace", "", "`name` of the namespace to create the pod in (required)")
	c.Flags().DurationVar(&w.timeout, "timeout", 30*time.Second, "fail if it has not passed by then")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if w.namespace == "" {
			return errors.New("--namespace is required and must not be empty")
		}
		config, err := rest.InClusterConfig()
		if err != nil {
			return fmt.Errorf("reach the API server from this pod: %w", err)
		}
		if w.api, err = kubernetes.NewForConfig(config); err != nil {
			return fmt.Errorf("client for %s: %w", config.Host, err)
		}
		w.out = c.OutOrStdout()
		return w.run(c.Context())
	}
	return c
}

// webhook is one probe of the webhook.
type webhook struct {
	namespace string
	timeout   time.Duration
	api       kubernetes.Interface
	out       io.Writer
}

// pause is the time between two attempts.
const pause = 2 * time.Second

// run blocks until the probe passes, which is no error, or ctx or the timeout
// ends it.
func (w *webhook) run(ctx context.Context) error {
	fmt.Fprintf(w.out, "probe %s: a Falco pod in namespace %q, as a dry run, at most %s\n", version.Version, w.namespace, w.timeout)
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	said := ""
	for {
		made, err := w.api.CoreV1().Pods(w.namespace).Create(ctx, falco.Canary(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			err = fmt.Errorf("the API server does not create the pod: %w", err)
		} else if err = w.judge(made); err == nil {
			return nil
		}
		if said == "" || ctx.Err() == nil && err.Error() != said { // not that time is up
			said = err.Error()
			fmt.Fprintf(w.out, "%s; again every %s\n", said, pause)
		}
		select {
		case <-ctx.Done():
			return errors.New(said)
		case <-time.After(pause):
		}
	}
}

// judge says what the webhook added, and returns an error if that is not all.
func (w *webhook) judge(made *corev1.Pod) error {
	text, looked := made.Annotations[wiring.StatusAnnotation]
	if !looked {
		return fmt.Errorf("the webhook has not looked at it (no annotation %s): the API server did not ask, or got no answer, and admits pods all the same. "+
			"Are the webhook's pods ready? Is there its MutatingWebhookConfiguration, with a caBundle that fits its certificate? Does namespace %s carry the label %s=false? metawire check tells which", wiring.StatusAnnotation, w.namespace, wiring.InjectAnnotation)
	}
	s, err := wiring.ParseStatus(text)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.out, "webhook %s: %s: %s\n", s.Version, s.Outcome, s.Reason)
	var added []string
	for _, c := range made.Spec.InitContainers {
		added = append(added, c.Name)
		fmt.Fprintf(w.out, "+ init container %s, image %s\n", c.Name, c.Image)
	}
	if s.Outcome != wiring.Wired || !slices.Contains(added, wiring.InitContainer) {
		return fmt.Errorf("the webhook has not wired it: %s (%s); metawire explain pod -f FILE says more of a pod like yours", s.Reason, s.Outcome)
	}
	fmt.Fprintln(w.out, "PASS: the webhook wires Falco pods")
	return nil
}
