package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// pollInterval is how often a condition is looked at.
	pollInterval = 50 * time.Millisecond
	// requestTimeout is for one request to a component that may be starting.
	requestTimeout = 5 * time.Second
)

// get returns the body of a GET that was answered with 200.
func get(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	return do(ctx, c, http.MethodGet, url, nil)
}

func do(ctx context.Context, c *http.Client, method, url string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

// poll calls ready until it returns nil. It blocks until then, or until ctx
// ends or stop is closed; the error is then ready's last one.
func poll(ctx context.Context, stop <-chan struct{}, ready func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-stop:
			return fmt.Errorf("the cluster ended: %w", err)
		}
	}
}

// compact compacts etcd at endpoint through its HTTP gateway.
func compact(ctx context.Context, c *http.Client, endpoint string) (int64, error) {
	// Revisions are int64, which the gateway writes as JSON strings.
	answer, err := do(ctx, c, http.MethodPost, endpoint+"/v3/kv/range", []byte(`{"key":"AA=="}`))
	if err != nil {
		return 0, fmt.Errorf("read the revision of etcd: %w", err)
	}
	var current struct {
		Header struct {
			Revision int64 `json:"revision,string"`
		} `json:"header"`
	}
	if err := json.Unmarshal(answer, &current); err != nil {
		return 0, fmt.Errorf("read the revision of etcd: %w", err)
	}
	revision := current.Header.Revision
	if revision == 0 {
		return 0, errors.New("read the revision of etcd: none in the answer")
	}
	body := fmt.Appendf(nil, `{"revision":"%d","physical":true}`, revision)
	if _, err := do(ctx, c, http.MethodPost, endpoint+"/v3/kv/compaction", body); err != nil {
		return 0, fmt.Errorf("compact etcd at revision %d: %w", revision, err)
	}
	return revision, nil
}
