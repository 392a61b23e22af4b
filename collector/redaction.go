package collector

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/collector/config"
)

// The redaction key's name in its Secret, and its least length in bytes.
const (
	redactionKeyName   = "key"
	redactionKeyLength = 32
)

// redactionKey returns the key of the digests that stand for credentials: that
// of the Secret, which it fills if it is empty, or of the file, else a new one.
// A Secret is read anew for each run: so a key that somebody replaces counts.
func redactionKey(ctx context.Context, api kubernetes.Interface, r config.Redaction) ([]byte, error) {
	switch {
	case r.Secret.Name != "":
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		key, err := sharedKey(ctx, api, r)
		if apierrors.IsConflict(err) { // another process was faster
			key, err = sharedKey(ctx, api, r)
		}
		if err != nil {
			return nil, fmt.Errorf("inventory.redaction.secret: %s/%s: %w", r.Secret.Namespace, r.Secret.Name, err)
		}
		return key, nil
	case r.KeyFile != "":
		key, err := os.ReadFile(r.KeyFile)
		if err == nil && len(key) < redactionKeyLength {
			err = errShortKey
		}
		if err != nil {
			return nil, fmt.Errorf("inventory.redaction.keyFile: %w", err)
		}
		return key, nil
	default:
		return newKey()
	}
}

var errShortKey = errors.New("the key is too short: it must have 32 bytes at least")

func sharedKey(ctx context.Context, api kubernetes.Interface, r config.Redaction) ([]byte, error) {
	secrets := api.CoreV1().Secrets(r.Secret.Namespace)
	s, err := secrets.Get(ctx, r.Secret.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	switch key := s.Data[redactionKeyName]; {
	case len(key) >= redactionKeyLength:
		return key, nil
	case len(key) > 0: // somebody put it there
		return nil, errShortKey
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	s.Data[redactionKeyName] = key
	// Only what was empty is filled: the version is that which was read.
	_, err = secrets.Update(ctx, s, metav1.UpdateOptions{FieldManager: "metawire-collector"})
	return key, err
}

func newKey() ([]byte, error) {
	key := make([]byte, redactionKeyLength)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}
