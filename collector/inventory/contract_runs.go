package inventory

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// RunsOptions configures the contract runs.
type RunsOptions struct {
	Pages PageOptions
	// Concurrency is how many pages are sent at the same time, default 4; so many
	// compressed pages are in memory.
	Concurrency int
	// OverrideUniqueClusterID tells the service that this cluster takes over the
	// cluster id from another.
	OverrideUniqueClusterID bool
	// Releases gives the Helm releases as JSON; it is called once a run, before
	// any object is sent. Nil is none.
	Releases func(context.Context) ([]json.RawMessage, error)
}

// NewRuns is the contract of Firefly's service: a run is opened, told the types
// and the Helm releases, sent the objects, and closed if it is complete; what
// was not sent is then deleted there. It has no spool: a page that cannot be
// delivered leaves the run open.
func NewRuns(o RunsOptions, s *Sender) Contract {
	return &runs{o: o, sender: s}
}

const runsContentType = "application/json; charset=UTF-8"

// runs is one run after the other.
type runs struct {
	o      RunsOptions
	sender *Sender

	run   Run
	at    opened
	pack  *packer
	zip   *compressor // of the small steps
	pages *errgroup.Group

	mu     sync.Mutex // what pages that are on their way change
	sent   Sent
	failed error
}

// Begin opens the run (step 2 of the contract; step 1, the login, is the
// sender's) and tells its types and Helm releases (step 3).
func (c *runs) Begin(ctx context.Context, run Run) error {
	if run.Changes {
		return errors.New("the contract runs takes complete runs only: what a closed run lacks is deleted")
	}
	*c = runs{o: c.o, sender: c.sender, run: run, zip: newCompressor(c.o.Pages.Plain), pages: new(errgroup.Group)}
	c.pages.SetLimit(cmp.Or(c.o.Concurrency, 4))
	if err := c.open(ctx); err != nil {
		return fmt.Errorf("open the run: %w", err)
	}
	head, err := json.Marshal(run.ID)
	if err != nil {
		return err
	}
	c.pack = newPacker(run.ID, c.path("/objects"), `{"fetchingId":`+string(head)+`,"k8sObjects":[`, c.o.Pages, c.deliver)
	if err := c.releases(ctx); err != nil {
		err = fmt.Errorf("tell types and Helm releases: %w", err)
		// The service is told why nothing follows; it may not hear that either.
		_ = c.metadata(ctx, &Report{Started: run.Started, Result: NotSent, Error: err.Error()})
		return err
	}
	return nil
}

// opened is what the service says of a run that it opened.
type opened struct {
	integration string // empty from old servers
	trees       bool
}

func (c *runs) open(ctx context.Context) error {
	query := url.Values{"clusterUniqueId": {c.run.ClusterUID}, "fetchingId": {c.run.ID}, "getIntegrationId": {"true"}}
	if c.o.OverrideUniqueClusterID {
		query.Set("overrideUniqueClusterId", "1")
	}
	a, err := c.sender.call(ctx, http.MethodGet, Page{Path: c.base() + "?" + query.Encode(), Run: c.run.ID}, "",
		http.StatusOK, http.StatusNoContent)
	c.took(a.retries, nil)
	if err != nil {
		switch statusOf(err) {
		case http.StatusTooEarly:
			return fmt.Errorf("%w: %w", ErrTooEarly, err)
		case http.StatusPaymentRequired:
			return fmt.Errorf("%w: the account is suspended: %w", ErrSkipped, err)
		case http.StatusConflict:
			return fmt.Errorf("%w: the cluster id is used by another cluster: %w", ErrSkipped, err)
		}
		return err
	}
	if a.status == http.StatusOK { // 204 is of old servers
		c.at, err = parseOpened(a.body)
	}
	return err
}

// parseOpened reads <integrationId> or <integrationId>,<sendTrees>, as text or as
// a JSON string.
func parseOpened(body []byte) (opened, error) {
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal([]byte(text), &text); err != nil {
			return opened{}, errors.New("the answer is neither text nor a JSON string")
		}
	}
	id, trees, _ := strings.Cut(text, ",")
	id = strings.TrimSpace(id)
	if id == "" || len(id) > 128 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.") != "" {
		return opened{}, errors.New("the answer begins with no integration id")
	}
	wanted, _ := strconv.ParseBool(strings.TrimSpace(trees)) // anything else is no
	return opened{integration: id, trees: wanted}, nil
}

func (c *runs) base() string {
	return "/integrations/k8s/" + url.PathEscape(c.run.ClusterID) + "/fetching"
}

// path is a step's, below base.
func (c *runs) path(step string) string {
	if c.at.integration == "" {
		return c.base() + step
	}
	return c.base() + step + "?integrationId=" + url.QueryEscape(c.at.integration)
}

func (c *runs) releases(ctx context.Context) error {
	type servedType struct {
		Kind       string `json:"kind"`
		Namespaced bool   `json:"namespaced"`
		APIVersion string `json:"apiVersion"`
	}
	in := struct {
		FetchingID string            `json:"fetchingId"`
		Releases   []json.RawMessage `json:"helmReleases"`
		Types      []servedType      `json:"k8sTypes"`
	}{FetchingID: c.run.ID, Releases: []json.RawMessage{}, Types: []servedType{}}
	for _, t := range c.run.Types {
		if t.Version != "" {
			in.Types = append(in.Types, servedType{Kind: t.Kind, Namespaced: t.Namespaced, APIVersion: t.APIVersion()})
		}
	}
	if c.o.Releases != nil {
		found, err := c.o.Releases(ctx)
		if err != nil {
			return err
		}
		in.Releases = append(in.Releases, found...)
	}
	return c.step(ctx, http.MethodPost, "/helm", "helm", in)
}

// step makes a small request of the run.
func (c *runs) step(ctx context.Context, method, step, key string, in any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	p := Page{Run: c.run.ID, Key: c.run.ID + "-" + key, Path: c.path(step)}
	p.Body, p.Gzip = c.zip.body(raw)
	a, err := c.sender.call(ctx, method, p, runsContentType, http.StatusNoContent)
	c.took(a.retries, nil)
	return err
}

func (c *runs) Add(ctx context.Context, o Object) error {
	if err := c.lost(); err != nil {
		return err
	}
	kind, err := json.Marshal(o.Kind)
	if err != nil {
		return err
	}
	return c.pack.add(ctx, `{"kind":`+string(kind)+`,"object":`, o.JSON, `}`)
}

func (c *runs) Delete(context.Context, Identity) error {
	return errors.New("the contract runs deletes nothing by name")
}

// deliver sends a page (step 5) beside others. It blocks while too many are on
// their way; what comes of the page is seen by the next, or by End.
func (c *runs) deliver(ctx context.Context, p Page) error {
	c.pages.Go(func() error {
		if c.lost() == nil { // else the run is not closed any more: the rest would be in vain
			c.post(ctx, p)
		}
		return nil
	})
	return c.lost()
}

func (c *runs) post(ctx context.Context, p Page) {
	retries, err := c.sender.sendPage(ctx, p, runsContentType)
	c.took(retries, func() {
		if err == nil {
			c.sent.took(p)
		} else if c.failed == nil {
			c.failed = fmt.Errorf("page %d: %w", p.Number, err)
		}
	})
}

// took counts, and does what else is to be done under the lock.
func (c *runs) took(retries int, and func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent.Retries += retries
	if and != nil {
		and()
	}
}

func (c *runs) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// End waits for the pages, closes the run if it is complete (step 6), and tells
// how it went (step 7).
func (c *runs) End(ctx context.Context, r *Report) error {
	if c.lost() == nil {
		// The error, if any, is the run's already.
		_ = c.pack.finish(ctx, func() bool { return r.Result == Complete })
	}
	_ = c.pages.Wait() // as above
	err := c.lost()
	if err == nil && r.Result == Complete {
		err = c.step(ctx, http.MethodPatch, "", "close", map[string]string{"fetchingId": c.run.ID, "clusterId": c.run.ClusterID})
		if err != nil {
			err = fmt.Errorf("close the run: %w", err)
		}
	}
	if err != nil {
		r.Result = NotSent
		r.Error = cmp.Or(r.Error, err.Error())
	}
	r.Sent = c.sent
	if told := c.metadata(ctx, r); told != nil {
		r.Notes = append(r.Notes, "the endpoint did not take the run's metadata: "+told.Error())
	}
	r.Sent.Retries = c.sent.Retries
	if c.at.trees {
		r.Notes = append(r.Notes, "the endpoint asked for object trees, which are not sent")
	}
	if r.Result != Complete {
		r.Notes = append(r.Notes, "the run was left open, so that the endpoint deletes nothing that was not sent")
	}
	return err
}

func (c *runs) metadata(ctx context.Context, r *Report) error {
	type stats struct {
		Sent

		Types int `json:"types"`
	}
	ended := r.Ended
	if ended.IsZero() {
		ended = time.Now()
	}
	in := struct {
		FetchingID string    `json:"fetchingId"`
		Start      time.Time `json:"startDate"`
		End        time.Time `json:"endDate"`
		Result     string    `json:"result"`
		Error      string    `json:"error,omitempty"`
		Collector  string    `json:"collectorVersion"`
		Stats      stats     `json:"collectorStats"`
		Server     string    `json:"serverVersion,omitempty"`
	}{c.run.ID, r.Started.UTC(), ended.UTC(), "failure", r.Error, r.Version, stats{r.Sent, len(r.Types)}, c.run.ServerVersion}
	if r.Result == Complete {
		in.Result = "success"
	}
	return c.step(ctx, http.MethodPost, "/metadata", "metadata", in)
}

// Probe asks a service of the contract runs whether it takes runs of a cluster: it
// logs in and opens a run, which is left at that. That it is too early for another
// is no error.
func Probe(ctx context.Context, s *Sender, run Run, override bool) error {
	c := &runs{o: RunsOptions{OverrideUniqueClusterID: override}, sender: s, run: run}
	err := c.open(ctx)
	if statusOf(err) == http.StatusTooEarly {
		return nil
	}
	return err
}
