package inventory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// ErrEmptyPage says that an endpoint answered, took the credentials, and does not
// take a page without objects.
var ErrEmptyPage = errors.New("the endpoint takes no page without objects")

// Try asks an endpoint of the contract objects whether it takes pages from this
// sender: it posts one without objects, which is no run's last, as a page of a run
// is posted. So nothing changes there. ErrEmptyPage is wrapped in the error if that
// is all that it refuses. It blocks as Send does.
func Try(ctx context.Context, s *Sender, o PageOptions) error {
	p := Page{Run: newRunID(), Number: 1}
	p.Key = p.Run + "-1"
	p.Body, p.Gzip = newCompressor(o.Plain).body([]byte(`{"objects":[` + pageTail))
	_, err := s.Send(ctx, p)
	if status := statusOf(err); status == http.StatusBadRequest || status == http.StatusUnprocessableEntity {
		return fmt.Errorf("%w: %w", ErrEmptyPage, err)
	}
	return err
}
