package inventory

import (
	"context"
	"encoding/json"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// State is where the replicas of a release keep what they share: a Lease that
// says who sends, a ConfigMap with what came of the last run, and ConfigMaps
// Index-0, Index-1, ... with what was acknowledged.
type State struct {
	API                             kubernetes.Interface
	Namespace, Lease, Report, Index string
}

func (s *State) lease(ctx context.Context) (*coordinationv1.Lease, error) {
	l, err := s.API.CoordinationV1().Leases(s.Namespace).Get(ctx, s.Lease, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Lease %s/%s: %w", s.Namespace, s.Lease, err)
	}
	return l, nil
}

// get returns a ConfigMap; an empty one if there is none.
func (s *State) get(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	c, err := s.API.CoreV1().ConfigMaps(s.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return &corev1.ConfigMap{}, nil
	case err != nil:
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", s.Namespace, name, err)
	}
	return c, nil
}

// contents are keys of a ConfigMap; others stay as they are.
type contents struct {
	Data       map[string]string `json:"data,omitempty"`
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
}

// put writes keys of a ConfigMap. One that is made goes when the Lease does,
// which helm uninstall takes away.
func (s *State) put(ctx context.Context, name string, what contents) error {
	patch, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode ConfigMap %s/%s: %w", s.Namespace, name, err)
	}
	api := s.API.CoreV1().ConfigMaps(s.Namespace)
	_, err = api.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: what.Data, BinaryData: what.BinaryData}
		if lease, err := s.lease(ctx); err == nil {
			c.Labels = lease.Labels
			c.OwnerReferences = []metav1.OwnerReference{{
				APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease", Name: lease.Name, UID: lease.UID,
			}}
		}
		_, err = api.Create(ctx, c, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write ConfigMap %s/%s: %w", s.Namespace, name, err)
	}
	return nil
}
