package migrate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/metawire/metawire/migrate/release"
)

// write writes the backup to a file that only its owner may read: there are
// credentials in it. It returns the file's name.
func (b *backup) write(file string, of OldRelease) (string, error) {
	file = cmp.Or(file, fmt.Sprintf("metawire-backup-%s-%s-%s.json", of.Namespace, of.Name, time.Now().Format("20060102-150405")))
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("write the backup: %w; name another file: --backup FILE", err)
	}
	e := json.NewEncoder(f)
	e.SetIndent("", "  ")
	if err := errors.Join(e.Encode(b), f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("write the backup to %s: %w", file, err)
	}
	return file, nil
}

// backUp says where the backup is: it was made before this could be recorded.
func (r *run) backUp(ctx context.Context) error {
	return r.do(ctx, "back up", func(context.Context) ([]string, error) {
		b, err := r.state.backup()
		if err != nil {
			return nil, err
		}
		return []string{
			fmt.Sprintf("%d objects and %d revisions of release %s, in Secret %s/%s and in %s", len(b.Objects), len(b.Records), r.state.Plan.Old, r.state.secret.Namespace, r.state.secret.Name, r.state.File),
		}, nil
	})
}

// find returns the object as it was, nil if there was none.
func (b *backup) find(o *Object) *unstructured.Unstructured {
	i := slices.IndexFunc(b.Objects, func(u *unstructured.Unstructured) bool { return o != nil && named(u) == *o })
	if i < 0 {
		return nil
	}
	return b.Objects[i]
}

// upgraded is the revision that a release has reached since it was backed up, 0 if
// none. Upgrades that failed do not count.
func (b *backup) upgraded(now []corev1.Secret) int {
	for _, record := range slices.Backward(now) {
		if n := release.Revision(record); n > b.newest() && record.Labels["status"] != "failed" {
			return n
		}
	}
	return 0
}

// newest is the last revision that was backed up.
func (b *backup) newest() int {
	n := 0
	for _, record := range b.Records {
		n = max(n, release.Revision(record))
	}
	return n
}
