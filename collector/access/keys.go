package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/metawire/metawire/internal/ticket"
)

// The key's name in the Secret, and its length in bytes.
const (
	keyName   = "key"
	keyLength = 32
)

// Keys holds the key that tickets are made and checked with. All replicas share
// it through a Secret, which the first of them fills. A new key in the Secret
// makes every ticket issued before no good; a key that is lost there is written
// back.
type Keys struct {
	api             kubernetes.Interface
	namespace, name string
	log             *slog.Logger

	mu   sync.Mutex
	key  []byte
	news chan struct{} // closed when the key changes
}

// NewKeys returns the keys of the Secret; none is known before Start.
func NewKeys(api kubernetes.Interface, namespace, name string, log *slog.Logger) *Keys {
	return &Keys{api: api, namespace: namespace, name: name, log: log.With("secret", namespace+"/"+name), news: make(chan struct{})}
}

// changed is closed when the key is no longer what it is now.
func (k *Keys) changed() <-chan struct{} {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.news
}

// make returns the ticket, false as long as the key is not known.
func (k *Keys) make(node, podUID string) (ticket.Ticket, bool) {
	k.mu.Lock()
	key := k.key
	k.mu.Unlock()
	if key == nil {
		return ticket.Ticket{}, false
	}
	return ticket.Ticket{Node: node, PodUID: podUID, MAC: mac(key, node, podUID)}, true
}

// good reports whether the ticket was made with the key, and whether the key is
// known.
func (k *Keys) good(t ticket.Ticket) (good, known bool) {
	want, known := k.make(t.Node, t.PodUID)
	return known && hmac.Equal([]byte(want.MAC), []byte(t.MAC)), known
}

// mac is made for tickets alone, should the key ever serve for something else.
// Neither part holds a slash.
func mac(key []byte, node, podUID string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("metawire.dev/ticket/v1\x00" + node + "/" + podUID))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Start watches the Secret until ctx ends, and fills it if it is empty. It
// returns nil then. A Secret that does not exist is waited for.
func (k *Keys) Start(ctx context.Context) error {
	latest := make(chan *corev1.Secret, 1)
	put := func(o any) {
		s, ok := o.(*corev1.Secret)
		if !ok || s.Name != k.name {
			return
		}
		select { // only the last one counts, and only the informer puts
		case <-latest:
		default:
		}
		latest <- s
	}
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, k.name).String()
	secrets := k.api.CoreV1().Secrets(k.namespace)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = only
				return secrets.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = only
				return secrets.Watch(ctx, o)
			},
		}, k.api),
		ObjectType: &corev1.Secret{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: put, UpdateFunc: func(_, o any) { put(o) },
		},
	})
	var all sync.WaitGroup
	all.Go(func() { informer.RunWithContext(ctx) })
	defer all.Wait()
	k.follow(ctx, latest)
	return nil
}

// follow takes in each version, and tries again to fill an empty one.
func (k *Keys) follow(ctx context.Context, latest <-chan *corev1.Secret) {
	var empty *corev1.Secret
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-latest:
			empty = nil
			if !k.adopt(s) {
				empty = s
			}
		case <-retry.C:
		}
		if empty == nil {
			continue
		}
		if err := k.fill(ctx, empty); err != nil && ctx.Err() == nil {
			// Another replica was faster, mostly: its version is on its way.
			k.log.Info("the key of tickets could not be written: trying again unless it is there", "error", err)
			retry.Reset(5 * time.Second)
			continue
		}
		empty = nil
	}
}

// adopt reports whether there is a key. One that is no key is not replaced:
// somebody put it there.
func (k *Keys) adopt(s *corev1.Secret) bool {
	key := s.Data[keyName]
	switch {
	case len(key) == 0:
		return false
	case len(key) < keyLength:
		k.log.Error("the key of tickets is too short: going on without it", "bytes", len(key), "wanted", keyLength)
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !hmac.Equal(k.key, key) {
		k.key = key
		close(k.news)
		k.news = make(chan struct{})
	}
	return true
}

// fill writes the key that is held, else a new one, unless the Secret has
// changed.
func (k *Keys) fill(ctx context.Context, s *corev1.Secret) error {
	k.mu.Lock()
	key := k.key
	k.mu.Unlock()
	did := "wrote back the key of tickets, which the Secret had lost"
	if key == nil {
		did, key = "made the key of tickets", make([]byte, keyLength)
		if _, err := rand.Read(key); err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
	}
	s = s.DeepCopy()
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	s.Data[keyName] = key
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	written, err := k.api.CoreV1().Secrets(s.Namespace).Update(ctx, s, metav1.UpdateOptions{FieldManager: "metawire-collector"})
	if err != nil {
		return fmt.Errorf("write the key into secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	k.log.Info(did)
	k.adopt(written)
	return nil
}
