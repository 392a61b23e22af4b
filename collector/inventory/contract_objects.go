package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
)

// ObjectsOptions configures the contract objects.
type ObjectsOptions struct {
	Pages PageOptions
	// Spool keeps pages that could not be delivered until the next run. Without
	// one such a run fails.
	Spool *Spool
	Log   *slog.Logger // default none
}

// NewObjects is the documented contract: pages of objects are posted to the
// endpoint one after the other, the last of a complete run says that it is, and
// 204 is success. Pages in the spool go first.
func NewObjects(o ObjectsOptions, s *Sender) Contract {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &objects{o: o, sender: s}
}

// objects is one run after the other.
type objects struct {
	o      ObjectsOptions
	sender *Sender

	pack  *packer
	sent  Sent
	notes []string // that no report has yet
	// down is the first page's error after which the endpoint is not tried again
	// in this run: what follows goes to the spool.
	down error
	// refused are pages that no attempt will deliver.
	refused []error
	failed  error // the run is lost: nothing more is taken
}

// Waiter is a Contract that keeps pages for the next run. A run that begins while
// some wait must send everything: they may be older than what the endpoint has,
// if another replica sent since.
type Waiter interface {
	// Waiting is how many pages wait.
	Waiting() int
}

func (c *objects) Waiting() int {
	pages, _ := c.o.Spool.Waiting()
	return pages
}

// Begin sends what waits in the spool. While the endpoint does not take that it
// is no use to list anything, so that is the run's error.
func (c *objects) Begin(ctx context.Context, run Run) error {
	*c = objects{o: c.o, sender: c.sender, notes: c.notes}
	c.pack = newPacker(run.ID, "", `{"objects":[`, c.o.Pages, c.deliver)
	if err := c.drain(ctx); err != nil {
		return fmt.Errorf("send what waits in the spool: %w", err)
	}
	return nil
}

// drain empties the spool, oldest first. A file that is corrupt, or that the
// endpoint will never take, is named and left out; what follows of its run does
// not end a complete one any more.
func (c *objects) drain(ctx context.Context) error {
	if c.o.Spool == nil {
		return nil
	}
	delivered := 0
	for {
		page, name, err := c.o.Spool.first()
		if name == "" {
			break
		}
		if err == nil {
			var retries int
			retries, err = c.sender.Send(ctx, page)
			c.sent.Retries += retries
		}
		if err != nil && !errors.Is(err, errCorrupt) && !hopeless(err) {
			return err
		}
		if err != nil {
			if err := c.o.Spool.unfinish(runOf(name)); err != nil {
				return err
			}
			c.o.Log.Error("a page of an earlier run was lost", "file", name, "error", err)
			c.notes = append(c.notes, fmt.Sprintf("a page of an earlier run was lost: %s: %v", name, err))
		} else {
			delivered++
		}
		if err := c.o.Spool.remove(name); err != nil {
			return err
		}
	}
	if delivered > 0 {
		c.notes = append(c.notes, fmt.Sprintf("delivered %d pages of earlier runs", delivered))
	}
	return nil
}

// hopeless says that the endpoint does not want these bytes, now or later.
func hopeless(err error) bool {
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

func (c *objects) Add(ctx context.Context, o Object) error {
	if c.failed != nil {
		return c.failed
	}
	return c.pack.add(ctx, "", o.JSON, "")
}

func (c *objects) Delete(ctx context.Context, gone Identity) error {
	if c.failed != nil {
		return c.failed
	}
	return c.pack.delete(ctx, gone)
}

// deliver sends a page, or keeps it. After one that the endpoint did not take in
// all its attempts, the rest of the run goes to the spool at once, in order.
func (c *objects) deliver(ctx context.Context, p Page) error {
	if c.down == nil {
		retries, err := c.sender.Send(ctx, p)
		c.sent.Retries += retries
		switch {
		case err == nil:
			c.sent.took(p)
			return nil
		case hopeless(err):
			c.refused = append(c.refused, fmt.Errorf("page %d: %w", p.Number, err))
			return nil
		}
		c.down = fmt.Errorf("page %d: %w", p.Number, err)
	}
	if c.o.Spool == nil {
		c.failed = c.down
		return c.failed
	}
	if err := c.o.Spool.put(p); err != nil {
		c.failed = errors.Join(c.down, err)
		return c.failed
	}
	c.sent.Spooled++
	return nil
}

// took counts a page that was acknowledged.
func (s *Sent) took(p Page) {
	s.Pages++
	s.Objects += p.Objects
	s.Bytes += p.Bytes
	s.Wire += int64(len(p.Body))
}

func (c *objects) End(ctx context.Context, r *Report) error {
	if c.failed == nil {
		// The error, if any, is in c.failed too.
		_ = c.pack.finish(ctx, func() bool { return r.Result == Complete && len(c.refused) == 0 })
	}
	r.Sent = c.sent
	r.Notes = append(r.Notes, c.notes...)
	c.notes = nil
	if n := c.sent.Spooled; n > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d pages wait on disk for the next run: %v", n, c.down))
		if r.Result == Complete {
			r.Result = Partial
		}
	}
	err := errors.Join(append(c.refused, c.failed)...)
	if err != nil {
		r.Result = NotSent
	}
	return err
}
