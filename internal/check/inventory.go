package check

import (
	"context"
	"fmt"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/lastrun"
)

// inventoryRuns looks at what the release tells of the last run of its inventory.
func inventoryRuns(ctx context.Context, t *Target) ([]string, string) {
	list, err := t.found.Client().CoreV1().ConfigMaps(t.found.Namespace).List(ctx, t.found.Only(installation.Inventory))
	if err != nil {
		return []string{err.Error()}, "this user must be able to list configmaps in namespace " + t.found.Namespace
	}
	for _, m := range list.Items {
		text, ok := m.Data[lastrun.Key]
		if !ok {
			continue
		}
		r, err := lastrun.Parse([]byte(text))
		if err != nil {
			return []string{fmt.Sprintf("ConfigMap %s/%s, %s: %v", m.Namespace, m.Name, lastrun.Key, err)}, "metawire inventory trigger makes a new report"
		}
		if !r.Complete() {
			return r.Lines(t.Now), "metawire inventory types says what is missed and why; metawire inventory trigger makes a run now"
		}
		return r.Lines(t.Now), ""
	}
	if len(list.Items) == 0 {
		return []string{"no inventory is configured"}, ""
	}
	return []string{"there was no run yet"}, ""
}
