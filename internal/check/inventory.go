package check

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/metawire/metawire/internal/installation"
)

// inventoryRuns looks at what the release tells of the last run of its inventory.
func inventoryRuns(ctx context.Context, t *Target) ([]string, string) {
	list, err := t.found.Client().CoreV1().ConfigMaps(t.found.Namespace).List(ctx, t.found.Only(installation.Inventory))
	if err != nil {
		return []string{err.Error()}, "this user must be able to list configmaps in namespace " + t.found.Namespace
	}
	for _, m := range list.Items {
		text, ok := m.Data["report.json"]
		if !ok {
			continue
		}
		// Of the report only what is needed: a command line of another version
		// need not know the rest.
		var r struct {
			Result string    `json:"result"`
			Ended  time.Time `json:"ended"`
			Error  string    `json:"error"`
			Types  []struct {
				Name    string `json:"name"`
				Outcome string `json:"outcome"`
				Error   string `json:"error"`
			} `json:"types"`
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return []string{fmt.Sprintf("ConfigMap %s/%s: %v", m.Namespace, m.Name, err)}, "metawire inventory trigger makes a new report"
		}
		details := []string{fmt.Sprintf("the last run ended %s ago: %s", t.Now.Sub(r.Ended).Round(time.Second), r.Result)}
		if r.Error != "" {
			details = append(details, r.Error)
		}
		for _, rt := range r.Types {
			if rt.Outcome != "ok" && rt.Outcome != "absent" && len(details) < maxListed {
				details = append(details, fmt.Sprintf("%s: %s: %s", rt.Name, rt.Outcome, rt.Error))
			}
		}
		if r.Result != "complete" {
			return details, "metawire inventory types says what is missed and why; metawire inventory trigger makes a run now"
		}
		return details, ""
	}
	if len(list.Items) == 0 {
		return []string{"no inventory is configured"}, ""
	}
	return []string{"there was no run yet"}, ""
}
