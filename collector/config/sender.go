package config

import (
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/version"
)

// SenderOptions are what the configuration says of whoever sends.
func (i *Inventory) SenderOptions() inventory.SenderOptions {
	c := i.Credentials
	o := inventory.SenderOptions{TokenFile: c.TokenFile, CAFile: i.CAFile, UserAgent: "metawire/" + version.Version}
	if c.Mode == CredentialsAccessKeys {
		o.AccessKeys = inventory.AccessKeys{
			LoginEndpoint: i.LoginEndpoint, AccessKeyFile: c.AccessKeyFile, SecretKeyFile: c.SecretKeyFile, AccessKey: c.AccessKey, SecretKey: c.SecretKey,
		}
	}
	return o
}

// PageOptions are what it says of pages.
func (i *Inventory) PageOptions() inventory.PageOptions {
	return inventory.PageOptions{Bytes: int(i.PageBytes), MaxObject: int(i.MaxObjectBytes), Plain: i.Compression == CompressionNone}
}
