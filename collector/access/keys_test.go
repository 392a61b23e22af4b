package access

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func secret(key []byte) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "tickets", ResourceVersion: "1"}}
	if key != nil {
		s.Data = map[string][]byte{keyName: key}
	}
	return s
}

// start runs keys until the end of the test.
func start(t *testing.T, api *fake.Clientset) *Keys {
	t.Helper()
	k := NewKeys(api, "n", "tickets", slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = k.Start(ctx) })
	t.Cleanup(func() { cancel(); all.Wait() })
	return k
}

// until waits for a key for which the condition holds.
func until(t *testing.T, k *Keys, condition func(key []byte) bool) []byte {
	t.Helper()
	timeout := time.After(patience)
	for {
		news := k.changed()
		k.mu.Lock()
		key := k.key
		k.mu.Unlock()
		if condition(key) {
			return key
		}
		select {
		case <-news:
		case <-timeout:
			t.Fatalf("the key is %d bytes", len(key))
		}
	}
}

func known(key []byte) bool { return key != nil }

// TestFirstFillsTheSecret: all replicas end up with what stands there.
func TestFirstFillsTheSecret(t *testing.T) {
	api := fake.NewClientset(secret(nil))
	a, b := start(t, api), start(t, api)
	until(t, a, known)
	until(t, b, known)
	s, err := api.CoreV1().Secrets("n").Get(t.Context(), "tickets", metav1.GetOptions{})
	if err != nil || len(s.Data[keyName]) != keyLength {
		t.Fatal(err, s)
	}
	same := func(key []byte) bool { return bytes.Equal(key, s.Data[keyName]) }
	until(t, b, same)
	until(t, a, same)
}

// TestNewKey: it counts at once, and tickets of the old one are no good.
func TestNewKey(t *testing.T) {
	api := fake.NewClientset(secret(bytes.Repeat([]byte{1}, keyLength)))
	k := start(t, api)
	until(t, k, known)
	old, _ := k.make("node", "pod")
	if good, _ := k.good(old); !good {
		t.Error("a ticket is not good")
	}
	if _, err := api.CoreV1().Secrets("n").Update(t.Context(), secret(bytes.Repeat([]byte{2}, keyLength)), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, k, func(key []byte) bool { return key[0] == 2 })
	if good, _ := k.good(old); good {
		t.Error("a ticket of the old key is good")
	}
}

// TestEmptiedSecret: the key that replicas hold is written back, so that tickets
// stay good.
func TestEmptiedSecret(t *testing.T) {
	api := fake.NewClientset(secret(bytes.Repeat([]byte{1}, keyLength)))
	k := start(t, api)
	until(t, k, known)
	if _, err := api.CoreV1().Secrets("n").Update(t.Context(), secret(nil), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		s, err := api.CoreV1().Secrets("n").Get(t.Context(), "tickets", metav1.GetOptions{})
		switch {
		case err != nil:
			t.Fatal(err)
		case len(s.Data[keyName]) > 0:
			if s.Data[keyName][0] != 1 {
				t.Error("the key is another")
			}
			return
		case time.Now().After(deadline):
			t.Fatal("the key is not written back")
		}
	}
}
