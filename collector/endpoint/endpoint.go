// Package endpoint makes of the configuration what speaks to the inventory's
// endpoint, and asks it whether it takes what is sent.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/version"
)

// NewContract returns what makes runs. It opens the spool, and sends nothing yet.
func NewContract(i *config.Inventory, o inventory.RunsOptions, log *slog.Logger) (inventory.Contract, error) {
	so := senderOptions(i)
	so.Log = log
	sender, err := newSender(i, so)
	if err != nil {
		return nil, err
	}
	if i.Contract == config.ContractRuns {
		o.Pages, o.OverrideUniqueClusterID = pages(i), i.OverrideUniqueClusterID
		return inventory.NewRuns(o, sender), nil
	}
	var spool *inventory.Spool
	if i.Spool.Directory != "" {
		if spool, err = inventory.OpenSpool(i.Spool.Directory, int64(i.Spool.MaxBytes)); err != nil {
			return nil, fmt.Errorf("inventory.spool.directory: %w", err)
		}
	}
	return inventory.NewObjects(inventory.ObjectsOptions{Pages: pages(i), Spool: spool, Log: log}, sender), nil
}

// Try asks the endpoint whether it takes what the inventory sends, and says what it
// took: a page without objects; with the contract runs the credentials alone, for a
// run that was opened would hold up the next. Nothing changes there. It tries three
// times, and blocks for half a minute at most, as long again for a login.
func Try(ctx context.Context, i *config.Inventory) (string, error) {
	o := senderOptions(i)
	o.Attempts, o.Timeout, o.Total = 3, 10*time.Second, 30*time.Second
	sender, err := newSender(i, o)
	if err != nil {
		return "", err
	}
	if i.Contract == config.ContractRuns {
		if err := sender.Login(ctx); err != nil {
			return "", fmt.Errorf("log in at the endpoint: %w", err)
		}
		return i.Endpoint + " takes the credentials", nil
	}
	switch err := inventory.Try(ctx, sender, pages(i)); {
	case errors.Is(err, inventory.ErrEmptyPage):
		return fmt.Sprintf("%s answers, and takes the credentials; a page without objects it does not: %v", i.Endpoint, err), nil
	case err != nil:
		return "", fmt.Errorf("send the endpoint a page without objects: %w", err)
	}
	return i.Endpoint + " took a page without objects", nil
}

func newSender(i *config.Inventory, o inventory.SenderOptions) (*inventory.Sender, error) {
	s, err := inventory.NewSender(i.Endpoint, o)
	if err != nil {
		return nil, fmt.Errorf("inventory.endpoint: %w", err)
	}
	return s, nil
}

func senderOptions(i *config.Inventory) inventory.SenderOptions {
	c := i.Credentials
	o := inventory.SenderOptions{TokenFile: c.TokenFile, CAFile: i.CAFile, UserAgent: "metawire/" + version.Version}
	if c.Mode == config.CredentialsAccessKeys {
		o.AccessKeys = inventory.AccessKeys{
			LoginEndpoint: i.LoginEndpoint, AccessKeyFile: c.AccessKeyFile, SecretKeyFile: c.SecretKeyFile, AccessKey: c.AccessKey, SecretKey: c.SecretKey,
		}
	}
	return o
}

func pages(i *config.Inventory) inventory.PageOptions {
	return inventory.PageOptions{Bytes: int(i.PageBytes), MaxObject: int(i.MaxObjectBytes), Plain: i.Compression == config.CompressionNone}
}
