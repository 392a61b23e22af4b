package migrate

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/metawire/metawire/migrate/release"
)

const (
	// manager is who Metawire's migration is for the API server.
	manager = "metawire-migrate"
	// migrationLabel is on what a migration keeps; its value is the old release.
	migrationLabel = "metawire.dev/migration"
	stateKey       = "state.json"
	backupKey      = "backup.json.gz"
)

// state is how far a migration is. It is kept in a Secret in the namespace of the
// old release, so that a run that was killed is taken up by the next one.
type state struct {
	// Phase is what is being done; done when all is.
	Phase string `json:"phase"`
	Plan  *Plan  `json:"plan"`
	// Values are the new release's, whole.
	Values map[string]any `json:"values"`
	// From is the Secret that To is a copy of; nil if nothing is copied.
	From *Object `json:"from,omitempty"`
	To   *Object `json:"to,omitempty"`
	// Old is what goes on in another way: the old Service, the old Deployment and
	// the old CronJob.
	Service    *Object `json:"service,omitempty"`
	Deployment *Object `json:"deployment,omitempty"`
	CronJob    *Object `json:"cronJob,omitempty"`
	// Relay is the Service of ours to which the old one points in another namespace.
	Relay *Object `json:"relay,omitempty"`
	// Kept says that --keep-old was given: the new release may have worked for days
	// before the rest is done.
	Kept bool `json:"kept,omitempty"`
	// HandedOver says that the old Service and Deployment may have been changed.
	HandedOver bool `json:"handedOver,omitempty"`
	// Users are how many subscribers the old collectors had before they were ended,
	// less than 0 if they did not tell.
	Users *float64 `json:"users,omitempty"`
	// File is where the backup lies besides, on the machine of who began.
	File    string    `json:"file,omitempty"`
	Began   time.Time `json:"began"`
	Changed time.Time `json:"changed"`

	secret *corev1.Secret // as it was read or written last
}

// backup is what a migration removes.
type backup struct {
	// Objects are those of the release, as they were.
	Objects []*unstructured.Unstructured `json:"objects"`
	// Records are Helm's.
	Records []corev1.Secret `json:"records"`
	// Hooks are the objects that hooks may have left, by name.
	Hooks []*unstructured.Unstructured `json:"hooks,omitempty"`
}

func stateName(release string) string { return "metawire-migration-" + release }

// states reads those of a namespace, or of all if it is empty.
func states(ctx context.Context, api kubernetes.Interface, namespace string) ([]*state, error) {
	list, err := api.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{LabelSelector: migrationLabel})
	if err != nil {
		return nil, fmt.Errorf("look for migrations that were begun: %w", err)
	}
	var all []*state
	for i := range list.Items {
		secret := &list.Items[i]
		if _, ok := secret.Data[stateKey]; !ok {
			continue // credentials
		}
		s := &state{secret: secret}
		if err := json.Unmarshal(secret.Data[stateKey], s); err != nil {
			return nil, fmt.Errorf("read Secret %s/%s: %s: %w", secret.Namespace, secret.Name, stateKey, err)
		}
		if s.Plan == nil {
			return nil, fmt.Errorf("read Secret %s/%s: %s: no plan", secret.Namespace, secret.Name, stateKey)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *state) int { return strings.Compare(a.Plan.Old.String(), b.Plan.Old.String()) })
	return all, nil
}

// maxBackup is what fits into a Secret, which holds 1 MiB, beside the state.
const maxBackup = 800 << 10

// pack returns what a Secret holds of the backup: of Helm's records that of the
// revision that is deployed, and the newest others that fit.
func (b *backup) pack(deployed int) ([]byte, error) {
	fits := *b
	fits.Records = slices.Clone(b.Records)
	for {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if err := errors.Join(json.NewEncoder(z).Encode(fits), z.Close()); err != nil {
			return nil, fmt.Errorf("pack the backup: %w", err)
		}
		if packed.Len() <= maxBackup {
			return packed.Bytes(), nil
		}
		if len(fits.Records) <= 1 {
			return nil, fmt.Errorf("the backup has %d KiB, packed: a Secret cannot hold it", packed.Len()>>10)
		}
		oldest := slices.IndexFunc(fits.Records, func(r corev1.Secret) bool { return release.Revision(r) != deployed })
		fits.Records = slices.Delete(fits.Records, oldest, oldest+1)
	}
}

// begin writes the first state, with the backup.
func (s *state) begin(ctx context.Context, api kubernetes.Interface, b *backup) error {
	packed, err := b.pack(s.Plan.Old.Revision)
	if err != nil {
		return err
	}
	s.secret = &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Plan.Old.Namespace, Name: stateName(s.Plan.Old.Name),
			Labels: map[string]string{migrationLabel: s.Plan.Old.Name},
		},
		Type: "metawire.dev/migration",
		Data: map[string][]byte{backupKey: packed},
	}
	data, err := s.encode()
	if err != nil {
		return err
	}
	s.secret.Data[stateKey] = data
	secrets := api.CoreV1().Secrets(s.secret.Namespace)
	made, err := secrets.Create(ctx, s.secret, metav1.CreateOptions{FieldManager: manager})
	if apierrors.IsAlreadyExists(err) {
		if err := s.supersede(ctx, api); err != nil {
			return err
		}
		made, err = secrets.Create(ctx, s.secret, metav1.CreateOptions{FieldManager: manager})
	}
	if err != nil {
		return fmt.Errorf("write how far the migration is: %w", err)
	}
	s.secret = made
	return nil
}

// supersede removes the state of a release of that name that was migrated before
// this one was installed.
func (s *state) supersede(ctx context.Context, api kubernetes.Interface) error {
	all, err := states(ctx, api, s.secret.Namespace)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.secret.Name == s.secret.Name && other.Phase != phaseDone {
			return fmt.Errorf("somebody else has begun to migrate release %s: run it again", s.Plan.Old)
		}
	}
	return s.forget(ctx, api)
}

// enter records what is being done now, and tries again when the API server does
// not answer. It fails if somebody else recorded something since.
func (s *state) enter(ctx context.Context, api kubernetes.Interface, phase string) error {
	s.Phase = phase
	s.HandedOver = s.HandedOver || phase == phaseHandOver
	s.Kept = s.Kept || phase == PhaseKept
	data, err := s.encode()
	if err != nil {
		return err
	}
	next := s.secret.DeepCopy()
	next.Data[stateKey] = data
	err = retry.OnError(enterBackoff(), passing, func() error {
		made, err := api.CoreV1().Secrets(next.Namespace).Update(ctx, next, metav1.UpdateOptions{FieldManager: manager})
		if apierrors.IsConflict(err) { // or it was written by the try before, and the answer lost
			now, err2 := api.CoreV1().Secrets(next.Namespace).Get(ctx, next.Name, metav1.GetOptions{})
			if err2 == nil && bytes.Equal(now.Data[stateKey], data) {
				made, err = now, nil
			}
		}
		if err == nil {
			s.secret = made
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write how far the migration is: %w; %s", err, goOn)
	}
	return nil
}

// enterBackoff goes on for half a minute.
func enterBackoff() wait.Backoff {
	return wait.Backoff{Duration: time.Second, Factor: 2, Steps: 6, Cap: 30 * time.Second}
}

// passing tells failures that pass from those that the API server means.
func passing(err error) bool {
	var answered apierrors.APIStatus
	if !errors.As(err, &answered) {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

func (s *state) encode() ([]byte, error) {
	s.Changed = time.Now().UTC()
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write how far the migration is: %w", err)
	}
	return data, nil
}

// forget removes the state, and the backup with it.
func (s *state) forget(ctx context.Context, api kubernetes.Interface) error {
	err := api.CoreV1().Secrets(s.secret.Namespace).Delete(ctx, s.secret.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove Secret %s/%s: %w", s.secret.Namespace, s.secret.Name, err)
	}
	return nil
}

// backup returns what was backed up.
func (s *state) backup() (*backup, error) {
	z, err := gzip.NewReader(bytes.NewReader(s.secret.Data[backupKey]))
	b := &backup{}
	if err == nil {
		err = json.NewDecoder(z).Decode(b)
	}
	if err != nil {
		return nil, fmt.Errorf("read the backup in Secret %s/%s: %w", s.secret.Namespace, s.secret.Name, err)
	}
	return b, nil
}
