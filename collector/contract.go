package collector

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
)

// newContract returns what speaks to the endpoint. It opens the spool, and sends
// nothing yet.
func newContract(i *config.Inventory, o inventory.RunsOptions, log *slog.Logger) (inventory.Contract, error) {
	so := i.SenderOptions()
	so.Log = log
	sender, err := inventory.NewSender(i.Endpoint, so)
	if err != nil {
		return nil, fmt.Errorf("inventory.endpoint: %w", err)
	}
	pages := i.PageOptions()
	if i.Contract == config.ContractRuns {
		o.Pages, o.OverrideUniqueClusterID = pages, i.OverrideUniqueClusterID
		return inventory.NewRuns(o, sender), nil
	}
	var spool *inventory.Spool
	if i.Spool.Directory != "" {
		if spool, err = inventory.OpenSpool(i.Spool.Directory, int64(i.Spool.MaxBytes)); err != nil {
			return nil, fmt.Errorf("inventory.spool.directory: %w", err)
		}
	}
	return inventory.NewObjects(inventory.ObjectsOptions{Pages: pages, Spool: spool, Log: log}, sender), nil
}

// basis is what decides what is sent and where to, beside the objects: another
// one means that everything is to be sent. The key is in it, for with another one
// every digest is another; the hash tells nothing of it.
func basis(c *config.Config, key []byte) string {
	i := c.Inventory
	text, _ := json.Marshal([]any{c.ClusterID, i.Endpoint, i.MaxObjectBytes, i.Redaction.Mode}) // strings and numbers: it cannot fail
	h := sha256.New()
	h.Write(text)
	h.Write(key)
	return hex.EncodeToString(h.Sum(nil))
}
