// Package receiver is the reference endpoint of the inventory: it takes both
// contracts strictly, says what is wrong with what it refuses, keeps what
// arrived in memory, and fails where it is told to. It is for tests, for the
// demo, and for people who write an endpoint of their own; it stores nothing and
// limits nothing but the size of a body.
package receiver

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Options configures a Receiver. The zero value takes anything that keeps to a
// contract, from anybody.
type Options struct {
	// Token is the bearer token that is wanted; or AccessKey and SecretKey are
	// those of the login, which gives tokens.
	Token                string
	AccessKey, SecretKey string
	Lifetime             time.Duration    // of tokens, default 24h
	Now                  func() time.Time // default time.Now
	// MaxBody is the JSON of the largest page in bytes, default 4 MiB.
	MaxBody int64
	// Fetching is the answer that opens a run of the contract runs, default 200;
	// 204 is an old server's, 425, 402 and 409 do not want a run.
	Fetching int
	// Integration is the body of a 200, default "integration-1,false".
	Integration string
	// Fault says how a request fails, the zero value is not at all; it is called
	// for each, from several goroutines. Default none.
	Fault func(*http.Request) Fault
	Log   *slog.Logger // a line per request; default none
}

// Receiver is an http.Handler. Any goroutine may call its methods.
type Receiver struct {
	o   Options
	mux *http.ServeMux

	mu     sync.Mutex
	tokens map[string]time.Time // until when they are good
	kept   Kept
	keys   map[string][sha256.Size]byte // of bodies, by Idempotency-Key
	runs   map[string]*run
}

// Kept is what arrived, duplicates left out.
type Kept struct {
	// Objects are by UID, or by apiVersion/kind/namespace/name if they have none,
	// the last one that came; Times says in how many different pages each did.
	Objects map[string]json.RawMessage
	Times   map[string]int
	Deleted map[string]Gone
	// Pages are the objects' UIDs of each page by its Idempotency-Key, or by a
	// number if it has none.
	Pages      map[string][]string
	Duplicates int // pages that came again
	Logins     int
	Refused    int // requests that broke the contract
	Faults     int // requests that failed as they were told to
	Runs       map[string]RunState
}

// Gone names an object that is gone.
type Gone struct {
	UID        string `json:"uid"`
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

// RunState is what is known of a run.
type RunState struct {
	Pages    int // that arrived
	Last     int // the number of the last, 0 while it is not known
	Releases int
	Closed   bool // by PATCH, or with the contract objects because all pages are there
	// From the metadata: success or failure, and whose version.
	Result, Error         string
	Collector, Kubernetes string
}

// New returns a receiver that has nothing yet.
func New(o Options) *Receiver {
	if o.Lifetime == 0 {
		o.Lifetime = 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBody == 0 {
		o.MaxBody = 4 << 20
	}
	if o.Fetching == 0 {
		o.Fetching = http.StatusOK
	}
	if o.Integration == "" {
		o.Integration = "integration-1,false"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Receiver{
		o: o, mux: http.NewServeMux(), tokens: map[string]time.Time{}, keys: map[string][sha256.Size]byte{}, runs: map[string]*run{},
		kept: Kept{Objects: map[string]json.RawMessage{}, Times: map[string]int{}, Deleted: map[string]Gone{}, Pages: map[string][]string{}},
	}
	const fetching = "/integrations/k8s/{cluster}/fetching"
	for pattern, take := range map[string]func(*http.Request) (answer, error){
		"POST /account/access_keys/login": r.login,
		"GET " + fetching:                 r.open,
		"POST " + fetching + "/helm":      r.helm,
		"POST " + fetching + "/tree":      r.tree,
		"POST " + fetching + "/objects":   r.runObjects,
		"PATCH " + fetching:               r.closeRun,
		"POST " + fetching + "/metadata":  r.metadata,
		"POST /":                          r.objects,
	} {
		r.mux.HandleFunc(pattern, r.answering(take))
	}
	return r
}

// answer is what a request is answered with when it keeps to the contract.
type answer struct {
	status int
	body   string
}

// violation is how a request breaks the contract.
type violation struct {
	status int
	why    string
}

func (v *violation) Error() string { return v.why }

func refuse(status int, format string, args ...any) error {
	return &violation{status: status, why: fmt.Sprintf(format, args...)}
}

// ServeHTTP takes a request, unless it is one that is to fail.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if r.o.Fault != nil {
		if f := r.o.Fault(q); f.Kind != None {
			r.mu.Lock()
			r.kept.Faults++
			r.mu.Unlock()
			f.happen(w, q, r.mux)
			return
		}
	}
	r.mux.ServeHTTP(w, q)
}

func (r *Receiver) answering(take func(*http.Request) (answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		a, err := take(q)
		if err != nil {
			v, ok := err.(*violation) //nolint:errorlint // never wrapped
			if !ok {
				v = &violation{status: http.StatusBadRequest, why: err.Error()}
			}
			a = answer{status: v.status, body: v.why + "\n"}
			r.mu.Lock()
			r.kept.Refused++
			r.mu.Unlock()
		}
		r.o.Log.Info("request", "method", q.Method, "path", q.URL.Path, "run", q.Header.Get("Metawire-Run"),
			"page", q.Header.Get("Metawire-Page"), "status", a.status, "error", err)
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body))
	}
}

// Kept returns what has arrived until now.
func (r *Receiver) Kept() Kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kept
	k.Objects, k.Times = maps.Clone(k.Objects), maps.Clone(k.Times)
	k.Deleted, k.Pages = maps.Clone(k.Deleted), maps.Clone(k.Pages)
	k.Runs = make(map[string]RunState, len(r.runs))
	for id, s := range r.runs {
		k.Runs[id] = s.RunState
	}
	return k
}
