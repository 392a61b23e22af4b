package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

// TestWebhook: what is said of the pod that the API server would have made.
func TestWebhook(t *testing.T) {
	status := func(o wiring.Outcome, init ...string) func(*corev1.Pod) error {
		return func(p *corev1.Pod) error {
			p.Annotations = map[string]string{wiring.StatusAnnotation: wiring.Status{Version: "1", Outcome: o, Reason: "because"}.String()}
			for _, name := range init {
				p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name, Image: "i"})
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		admit       func(*corev1.Pod) error
		says, fails string
	}{
		"wired":         {status(wiring.Wired, wiring.InitContainer), "+ init container metawire-wire, image i\nPASS", ""},
		"not looked at": {func(*corev1.Pod) error { return nil }, "", "the webhook has not looked at it"},
		"not wired":     {status(wiring.NotWired), "webhook 1: notWired: because", "has not wired it: because (notWired)"},
		"nothing added": {status(wiring.Wired), "", "has not wired it"},
		"no status":     {func(p *corev1.Pod) error { p.Annotations = map[string]string{wiring.StatusAnnotation: "{"}; return nil }, "", "annotation metawire.dev/status"},
		"forbidden":     {func(*corev1.Pod) error { return errors.New("violates PodSecurity") }, "", "the API server does not create the pod: violates PodSecurity"},
	} {
		t.Run(name, func(t *testing.T) {
			api := fake.NewClientset()
			api.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
				create, _ := a.(clienttesting.CreateActionImpl)
				p, ok := create.GetObject().(*corev1.Pod)
				if !ok || len(create.CreateOptions.DryRun) != 1 || create.GetNamespace() != "n" || !falco.Is(p.Spec.Containers[0].Name, p.Spec.Containers[0].Image) {
					t.Errorf("asked for %+v", create)
				}
				return true, p, c.admit(p)
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out bytes.Buffer
			err := (&webhook{namespace: "n", timeout: 50 * time.Millisecond, api: api, out: &out}).run(ctx)
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("it ends with %v", err)
			}
			if !strings.Contains(out.String(), c.says) || strings.Contains(out.String(), "PASS") != (c.fails == "") {
				t.Errorf("it says %q", out.String())
			}
		})
	}
	if err := run(t.Context(), []string{"webhook"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "--namespace is required") {
		t.Errorf("without a namespace: %v", err)
	}
}

// TestCanaryIsWired by the webhook's own code, in a namespace of restricted pods.
func TestCanaryIsWired(t *testing.T) {
	p := falco.Canary()
	p.Namespace = "n"
	patched, d := inject.Pod(p, inject.Settings{Version: "1", Host: "c.n.svc", Port: 45000, Addresses: []string{"192.0.2.1"}, Image: "i"})
	if d.Outcome != wiring.Wired {
		t.Fatalf("%s: %s", d.Outcome, d.Reason)
	}
	for _, c := range append(patched.Spec.InitContainers, patched.Spec.Containers...) {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || len(s.Capabilities.Drop) != 1 {
			t.Errorf("container %s is not restricted: %+v", c.Name, s)
		}
	}
	for _, v := range patched.Spec.Volumes {
		if v.HostPath != nil {
			t.Errorf("volume %s is not one of restricted pods", v.Name)
		}
	}
}
