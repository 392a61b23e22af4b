package inventory

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metawire/metawire/collector/inventory/receiver"
)

const testRunID = "0123456789abcdef01234567"

// fast makes attempts follow one another at once.
func fast(o SenderOptions) SenderOptions {
	if o.Wait == 0 {
		o.Wait, o.MaxWait = time.Millisecond, 2*time.Millisecond
	}
	return o
}

func newTestSender(t *testing.T, endpoint string, o SenderOptions) *Sender {
	t.Helper()
	s, err := NewSender(endpoint, fast(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.calls.http.HTTPClient.CloseIdleConnections)
	return s
}

// serve starts an endpoint.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(s.Close)
	return s.URL
}

func testObject(n int, pad int) Object {
	id := Identity{
		UID: fmt.Sprintf("uid-%d", n), APIVersion: "v1", Kind: "ConfigMap", Namespace: "default", Name: fmt.Sprintf("name-%d", n),
		ResourceVersion: "1",
	}
	raw := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"default","name":%q,"uid":%q},"data":{"pad":%q}}`,
		id.Name, id.UID, strings.Repeat("x", pad))
	return Object{Identity: id, JSON: []byte(raw)}
}

func testRun(id string) Run {
	return Run{
		ID: id, ClusterID: "cluster-1", ClusterUID: "kube-system-uid", Started: time.Now(),
		Types: []Type{{Name: "configmaps", Version: "v1", Resource: "configmaps", Kind: "ConfigMap", Namespaced: true}, {Name: "absent.example.com"}},
	}
}

// sendRun sends objects as the engine does; the error is the first that the
// contract gave.
func sendRun(ctx context.Context, c Contract, run Run, objects []Object, result Result) (*Report, error) {
	r := &Report{Run: run.ID, Result: result, Started: run.Started, Version: "test"}
	if err := c.Begin(ctx, run); err != nil {
		return r, err
	}
	for _, o := range objects {
		// JSON is the contract's until Add returns, and no longer.
		lent := Object{Identity: o.Identity, JSON: bytes.Clone(o.JSON)}
		err := c.Add(ctx, lent)
		clear(lent.JSON)
		if err != nil {
			r.Result = NotSent
			break
		}
	}
	return r, c.End(ctx, r)
}

func testObjects(n, pad int) []Object {
	out := make([]Object, n)
	for i := range out {
		out[i] = testObject(i, pad)
	}
	return out
}

// wantKept checks that exactly these objects arrived, as they are.
func wantKept(t *testing.T, k receiver.Kept, objects []Object) {
	t.Helper()
	if len(k.Objects) != len(objects) {
		t.Errorf("%d objects arrived, %d were sent", len(k.Objects), len(objects))
	}
	for _, o := range objects {
		if got := k.Objects[o.UID]; !bytes.Equal(got, o.JSON) {
			t.Errorf("%s arrived as %.80q", o.UID, got)
		}
		if k.Times[o.UID] != 1 {
			t.Errorf("%s arrived in %d pages", o.UID, k.Times[o.UID])
		}
	}
}

// buffer is a log that several goroutines write.
type buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

func debugLog(to *buffer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
