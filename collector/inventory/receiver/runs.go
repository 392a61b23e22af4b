package receiver

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"
)

var (
	fetchingID = regexp.MustCompile(`^[0-9a-f]{24}$`)
	clusterID  = regexp.MustCompile(`^[a-z0-9-_]+$`)
)

// run is a run with what its order needs; cluster is empty with the contract
// objects.
type run struct {
	RunState

	cluster string
	helm    bool
	done    bool // its metadata came
}

// open is step 2: it opens a run.
func (r *Receiver) open(q *http.Request) (answer, error) {
	if err := r.authorize(q); err != nil {
		return answer{}, err
	}
	query := q.URL.Query()
	for name := range query {
		switch name {
		case "clusterUniqueId", "fetchingId", "getIntegrationId", "overrideUniqueClusterId":
		default:
			return answer{}, refuse(http.StatusBadRequest, "the query has an unknown parameter %q", name)
		}
	}
	id, cluster := query.Get("fetchingId"), q.PathValue("cluster")
	switch {
	case !clusterID.MatchString(cluster):
		return answer{}, refuse(http.StatusBadRequest, "the cluster id %q does not match %s", cluster, clusterID)
	case !fetchingID.MatchString(id):
		return answer{}, refuse(http.StatusBadRequest, "the fetchingId %q is not 24 hexadecimal digits", id)
	case query.Get("clusterUniqueId") == "":
		return answer{}, refuse(http.StatusBadRequest, "clusterUniqueId is missing")
	case query.Get("getIntegrationId") != "true":
		return answer{}, refuse(http.StatusBadRequest, "getIntegrationId is not true")
	}
	switch r.o.Fetching {
	case http.StatusOK, http.StatusNoContent:
	default:
		return answer{status: r.o.Fetching}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.runs[id]; s == nil {
		r.runs[id] = &run{cluster: cluster}
	} else if s.helm || s.cluster != cluster {
		return answer{}, refuse(http.StatusConflict, "the run %q is open already", id)
	}
	if r.o.Fetching == http.StatusNoContent {
		return answer{status: http.StatusNoContent}, nil
	}
	return answer{status: http.StatusOK, body: r.o.Integration}, nil
}

// step takes what steps 3 to 7 have in common, and hands the run to apply with
// the lock held. A step that came before is acknowledged again.
func (r *Receiver) step(q *http.Request, id func() string, in any, apply func(*run, []byte) error) (answer, error) {
	if err := r.authorize(q); err != nil {
		return answer{}, err
	}
	want, _, _ := strings.Cut(strings.Trim(r.o.Integration, `"`), ",")
	if r.o.Fetching == http.StatusNoContent {
		want = ""
	}
	if got := q.URL.Query().Get("integrationId"); got != want {
		return answer{}, refuse(http.StatusBadRequest, "the integrationId %q is not the one that was given", got)
	}
	raw, err := r.body(q)
	if err != nil {
		return answer{}, err
	}
	if err := decode(raw, in); err != nil {
		return answer{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.runs[id()]
	if s == nil || s.cluster != q.PathValue("cluster") {
		return answer{}, refuse(http.StatusNotFound, "no run %q of the cluster %q is open", id(), q.PathValue("cluster"))
	}
	if err := apply(s, raw); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, nil
}

// once applies a step that is not a page, unless it came before.
func (r *Receiver) once(q *http.Request, apply func(*run) error) func(*run, []byte) error {
	return func(s *run, raw []byte) error {
		again, err := r.seen(q.Header.Get("Idempotency-Key"), raw)
		if err != nil || again {
			return err
		}
		return apply(s)
	}
}

// helm is step 3.
func (r *Receiver) helm(q *http.Request) (answer, error) {
	var in struct {
		FetchingID string            `json:"fetchingId"`
		Releases   []json.RawMessage `json:"helmReleases"`
		Types      []struct {
			Kind       string `json:"kind"`
			Namespaced *bool  `json:"namespaced"`
			APIVersion string `json:"apiVersion"`
		} `json:"k8sTypes"`
	}
	return r.step(q, func() string { return in.FetchingID }, &in, r.once(q, func(s *run) error {
		if in.Releases == nil || in.Types == nil {
			return refuse(http.StatusBadRequest, "helmReleases or k8sTypes is missing")
		}
		for n, t := range in.Types {
			if t.Kind == "" || t.Namespaced == nil || t.APIVersion == "" {
				return refuse(http.StatusUnprocessableEntity, "type %d lacks its kind, namespaced or apiVersion", n)
			}
		}
		s.helm, s.Releases = true, len(in.Releases)
		return nil
	}))
}

// tree is step 4, which is optional: it is read and forgotten.
func (r *Receiver) tree(q *http.Request) (answer, error) {
	var in struct {
		FetchingID string            `json:"fetchingId"`
		Trees      []json.RawMessage `json:"k8sTrees"`
	}
	return r.step(q, func() string { return in.FetchingID }, &in, func(s *run, _ []byte) error { return s.takes("trees") })
}

// takes says whether a run takes objects now.
func (s *run) takes(what string) error {
	switch {
	case !s.helm:
		return refuse(http.StatusConflict, "%s before the Helm releases", what)
	case s.Closed || s.done:
		return refuse(http.StatusConflict, "%s after the run was closed", what)
	}
	return nil
}

// runObjects is step 5.
func (r *Receiver) runObjects(q *http.Request) (answer, error) {
	p, err := parsePage(q)
	if err != nil {
		return answer{}, err
	}
	var in struct {
		FetchingID string `json:"fetchingId"`
		Objects    []struct {
			Kind   string          `json:"kind"`
			Object json.RawMessage `json:"object"`
		} `json:"k8sObjects"`
	}
	return r.step(q, func() string { return in.FetchingID }, &in, func(s *run, raw []byte) error {
		// A page that comes again is no objection, however late.
		if _, again := r.keys[p.key]; !again {
			if err := s.takes("objects"); err != nil {
				return err
			}
		}
		if p.run != "" && p.run != in.FetchingID {
			return refuse(http.StatusBadRequest, "Metawire-Run is not the fetchingId")
		}
		p.run = in.FetchingID
		objects := make([]json.RawMessage, len(in.Objects))
		for n, o := range in.Objects {
			parsed, err := parseObject(o.Object, n)
			if err != nil {
				return err
			}
			if o.Kind != parsed.Kind {
				return refuse(http.StatusUnprocessableEntity, "object %d is of the kind %q, not %q", n, parsed.Kind, o.Kind)
			}
			objects[n] = o.Object
		}
		return r.keep(p, raw, objects, nil)
	})
}

// closeRun is step 6.
func (r *Receiver) closeRun(q *http.Request) (answer, error) {
	var in struct {
		FetchingID string `json:"fetchingId"`
		ClusterID  string `json:"clusterId"`
	}
	return r.step(q, func() string { return in.FetchingID }, &in, r.once(q, func(s *run) error {
		if in.ClusterID != s.cluster {
			return refuse(http.StatusBadRequest, "the clusterId %q is not the path's", in.ClusterID)
		}
		if err := s.takes("a close"); err != nil {
			return err
		}
		s.Closed = true
		return nil
	}))
}

// metadata is step 7.
func (r *Receiver) metadata(q *http.Request) (answer, error) {
	var in struct {
		FetchingID string          `json:"fetchingId"`
		Start      time.Time       `json:"startDate"`
		End        time.Time       `json:"endDate"`
		Result     string          `json:"result"`
		Error      string          `json:"error"`
		Collector  string          `json:"collectorVersion"`
		Stats      json.RawMessage `json:"collectorStats"`
		Server     string          `json:"serverVersion"`
	}
	return r.step(q, func() string { return in.FetchingID }, &in, r.once(q, func(s *run) error {
		switch {
		case in.Result != "success" && in.Result != "failure":
			return refuse(http.StatusUnprocessableEntity, "the result %q is neither success nor failure", in.Result)
		case in.Start.IsZero() || in.End.Before(in.Start):
			return refuse(http.StatusUnprocessableEntity, "startDate and endDate are not those of a run")
		case in.Result == "success" && !s.Closed:
			return refuse(http.StatusConflict, "success of a run that was not closed")
		case s.done:
			return refuse(http.StatusConflict, "the run has its metadata already")
		}
		s.done, s.Result, s.Error = true, in.Result, in.Error
		s.Collector, s.Kubernetes = in.Collector, in.Server
		return nil
	}))
}
