package certs

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// cluster holds the one Secret.
type cluster struct {
	*fake.Clientset

	t *testing.T
}

func newCluster(t *testing.T) *cluster {
	return &cluster{fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "ca"}}), t}
}

func (c *cluster) daemon() *selfManaged {
	return newSelfManaged(Settings{Secret: SecretRef{Namespace: "n", Name: "ca"}, DNSNames: []string{host}},
		c, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()), options(true))
}

func (c *cluster) secret() *corev1.Secret {
	c.t.Helper()
	s, err := c.CoreV1().Secrets("n").Get(c.t.Context(), "ca", metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// replace is what a person does, or a tool.
func (c *cluster) replace(s state) {
	c.t.Helper()
	out := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "ca", Annotations: s.annotations}, Data: s.data}
	if _, err := c.CoreV1().Secrets("n").Update(c.t.Context(), out, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) state() state {
	s := c.secret()
	return state{s.Data, s.Annotations}.clone()
}

// published is the bundle that the daemon published last.
func (a *selfManaged) published(t *testing.T) []byte {
	t.Helper()
	select {
	case b := <-a.bundles:
		return b
	default:
		t.Fatal("no bundle is published")
		return nil
	}
}

// TestEmptiedSecret: what daemons hold outlives what the Secret holds, in every
// step of a change.
func TestEmptiedSecret(t *testing.T) {
	for name, prepare := range map[string]func(state) state{
		"no change": func(s state) state { return s },
		"step 1": func(s state) state {
			s.annotations[rotateAnnotation] = "x"
			s, _ = settle(t, s, time.Now(), options(false))
			return s
		},
		"step 2": func(s state) state {
			s.annotations[rotateAnnotation] = "x"
			s, _ = settle(t, s, time.Now().Add(-time.Minute), options(false))
			s, _ = settle(t, s, time.Now(), options(true))
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			a := c.daemon()
			a.step(t.Context(), c.secret())
			c.replace(prepare(c.state()))
			before := c.state()
			a.step(t.Context(), c.secret())
			c.replace(state{annotations: map[string]string{rotateAnnotation: before.annotations[rotateAnnotation]}})
			a.step(t.Context(), c.secret())
			a.step(t.Context(), c.secret())
			after := c.state()
			for _, key := range []string{keyBundle, keyCert, keyKey, keyNextCert, keyNextKey, keyOldCert} {
				if !bytes.Equal(before.data[key], after.data[key]) {
					t.Errorf("%s is another", key)
				}
			}
			for _, key := range []string{rotatedAnnotation, stepAnnotation} {
				if before.annotations[key] != after.annotations[key] {
					t.Errorf("%s is %q, was %q", key, after.annotations[key], before.annotations[key])
				}
			}
		})
	}
}

// TestForeignAuthority: one that a person puts there is adopted.
func TestForeignAuthority(t *testing.T) {
	c := newCluster(t)
	a := c.daemon()
	a.step(t.Context(), c.secret())
	other, _ := settle(t, state{}, time.Now(), options(true))
	delete(other.data, keyBundle)
	c.replace(other)
	a.step(t.Context(), c.secret())
	if got := a.published(t); !bytes.Equal(got, other.data[keyCert]) {
		t.Errorf("published: %s", got)
	}
	if !bytes.Equal(a.current.pem, other.data[keyCert]) || !bytes.Equal(c.secret().Data[keyBundle], other.data[keyCert]) {
		t.Error("the authority is not adopted")
	}
}

// TestWriteRefused: an authority that is there is served, whatever the API
// server says to what should be written.
func TestWriteRefused(t *testing.T) {
	c := newCluster(t)
	good, _ := settle(t, state{}, time.Now(), options(true))
	delete(good.data, keyBundle)
	c.replace(good)
	c.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("forbidden")
	})
	a := c.daemon()
	a.step(t.Context(), c.secret())
	if a.current == nil || !bytes.Equal(a.current.pem, good.data[keyCert]) {
		t.Fatal("the authority does not sign")
	}
	if got := a.published(t); !bytes.Equal(got, good.data[keyCert]) {
		t.Errorf("published: %s", got)
	}
	empty := c.secret()
	empty.Data = nil
	a.step(t.Context(), empty)
	if a.current == nil {
		t.Error("an emptied Secret that cannot be written ends the authority")
	}
}
