package collector

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/metawire/metawire/collector/config"
)

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
