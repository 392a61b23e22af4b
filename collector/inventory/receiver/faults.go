package receiver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Kind is how a request fails.
type Kind int

// The kinds of faults.
const (
	None         Kind = iota
	Refuse            // the connection is reset before anything is read
	ResetInBody       // ... after At bytes of the body
	Slow              // the answer comes after Delay
	TooMany           // 429 with Retry-After
	Unauthorized      // 401
	Failure           // 500
	CloseEarly        // the connection ends within the headers of the answer
	WrongStatus       // Status
	kinds             // how many there are
)

// Kinds are all that fail.
func Kinds() []Kind {
	var out []Kind
	for k := None + 1; k < kinds; k++ {
		out = append(out, k)
	}
	return out
}

// Fault is how one request fails. It needs HTTP/1.1, but for the kinds that
// answer.
type Fault struct {
	Kind Kind
	// Taken has the request taken in before it fails, so that the sender cannot
	// know that it arrived. Slow always does.
	Taken      bool
	At         int           // ResetInBody: bytes of the body as it is sent; CloseEarly: of the answer
	Delay      time.Duration // Slow
	RetryAfter string        // TooMany: the header's value
	Status     int           // WrongStatus
	Body       string        // of the kinds that answer
}

// happen fails the request; taker is who takes it in if it is to be.
func (f Fault) happen(w http.ResponseWriter, q *http.Request, taker http.Handler) {
	if f.Kind == Slow {
		if wait(q.Context(), f.Delay) {
			taker.ServeHTTP(w, q)
		}
		return
	}
	if f.Taken && f.Kind != Refuse && f.Kind != ResetInBody {
		taker.ServeHTTP(nobody{http.Header{}}, q)
	}
	switch f.Kind {
	case ResetInBody:
		_, _ = io.CopyN(io.Discard, q.Body, int64(f.At))
		cut(w, "", true)
	case CloseEarly:
		head := "HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
		cut(w, head[:min(max(f.At, 0), len(head))], false)
	case TooMany:
		w.Header().Set("Retry-After", f.RetryAfter)
		f.answer(w, http.StatusTooManyRequests)
	case Unauthorized:
		f.answer(w, http.StatusUnauthorized)
	case Failure:
		f.answer(w, http.StatusInternalServerError)
	case WrongStatus:
		f.answer(w, f.Status)
	default:
		cut(w, "", true)
	}
}

// nobody hears an answer.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n nobody) WriteHeader(int)             {}

func (f Fault) answer(w http.ResponseWriter, status int) {
	w.WriteHeader(status)
	_, _ = fmt.Fprint(w, f.Body)
}

// cut writes what is given and ends the connection, with a reset if it is to be
// noticed as one.
func cut(w http.ResponseWriter, last string, reset bool) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		// HTTP/2 ends the stream, which is as near as it comes.
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(c, last)
	if tcp, ok := c.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
