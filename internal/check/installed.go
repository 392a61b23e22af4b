package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/metawire/metawire/internal/installation"
)

func installed(ctx context.Context, t *Target) ([]string, string) {
	found, err := installation.Find(ctx, t.Config, t.Namespace)
	if err != nil {
		hint := "see the message"
		if errors.Is(err, installation.ErrNotFound) {
			hint = "helm install metawire charts/metawire -n metawire --create-namespace"
		}
		return []string{err.Error()}, hint
	}
	t.found = found
	stream := "without a stream"
	if found.Port != 0 {
		stream = "stream at " + found.Addr()
	}
	return []string{fmt.Sprintf("release %s %s in namespace %s, %s", found.Release, found.Version, found.Namespace, stream)}, ""
}
