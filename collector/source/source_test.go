package source_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector/relation"
	"github.com/metawire/metawire/collector/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// sink is what a source fed.
type sink struct {
	mu   sync.Mutex
	held map[relation.Kind]map[string]relation.Object
}

func (s *sink) change(k relation.Kind, f func(map[string]relation.Object)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[relation.Kind]map[string]relation.Object{}
	}
	if s.held[k] == nil {
		s.held[k] = map[string]relation.Object{}
	}
	f(s.held[k])
}

func (s *sink) Apply(o relation.Object) {
	s.change(o.Kind, func(held map[string]relation.Object) { held[o.UID] = o })
}

func (s *sink) Delete(k relation.Kind, uid string) {
	s.change(k, func(held map[string]relation.Object) { delete(held, uid) })
}

func (s *sink) Replace(k relation.Kind, objects []relation.Object) {
	s.change(k, func(held map[string]relation.Object) {
		clear(held)
		for _, o := range objects {
			held[o.UID] = o
		}
	})
}

// get returns an object of the sink.
func (s *sink) get(k relation.Kind, uid string) (o relation.Object, ok bool) {
	s.change(k, func(held map[string]relation.Object) { o, ok = held[uid] })
	return o, ok
}

// apiServer is an API server that does not stream lists, as some do not. Every
// resource is empty but for what is in lists; those in missing are not served.
type apiServer struct {
	t       testing.TB          // set by run
	lists   map[string][]string // by resource: objects of a page each, as JSON
	missing []string
	// watches are, by resource, the events of one watch after the other; each
	// watch but the last ends after its events.
	watches map[string][][]string

	mu       sync.Mutex
	requests []*http.Request
	opened   map[string]int
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	query := r.URL.Query()
	a.mu.Lock()
	a.requests = append(a.requests, r)
	n := a.opened[resource]
	if query.Get("watch") != "" && query.Get("sendInitialEvents") == "" {
		a.opened[resource]++
	}
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case slices.Contains(a.missing, resource):
		refuse(w, http.StatusNotFound, "NotFound")
	case query.Get("sendInitialEvents") != "":
		refuse(w, http.StatusUnprocessableEntity, "Invalid")
	case query.Get("watch") != "":
		a.watch(w, r, resource, n)
	default:
		a.list(w, r, resource, query.Get("continue"))
	}
}

func refuse(w http.ResponseWriter, code int, reason string) {
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code)
}

// list answers with the page that the token asks for.
func (a *apiServer) list(w http.ResponseWriter, r *http.Request, resource, token string) {
	kind, version := "PartialObjectMetadataList", "meta.k8s.io/v1"
	switch resource {
	case "pods":
		kind, version = "PodList", "v1"
	case "nodes":
		kind, version = "NodeList", "v1"
	case "endpointslices":
		kind, version = "EndpointSliceList", "discovery.k8s.io/v1"
	}
	pages, page := a.lists[resource], 0
	_, _ = fmt.Sscan(token, &page)
	items, next := "", ""
	if page < len(pages) {
		items = pages[page]
		if page+1 < len(pages) {
			next = fmt.Sprint(page + 1)
		}
	}
	body := fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"5","continue":%q},"items":[%s]}`, kind, version, next, items)
	if whole(resource) {
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		_, _ = w.Write(asProtobuf(a.t, body))
		return
	}
	_, _ = io.WriteString(w, body)
}

// whole tells the resources that are asked for as whole objects, and answered
// in protobuf.
func whole(resource string) bool {
	return resource == "pods" || resource == "nodes" || resource == "endpointslices"
}

// asProtobuf encodes an object given as JSON as an API server does.
func asProtobuf(t testing.TB, text string) []byte {
	var b bytes.Buffer
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(text), nil, nil)
	if err == nil {
		err = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(object, &b)
	}
	if err != nil {
		t.Errorf("encode %s: %v", text, err)
	}
	return b.Bytes()
}

// event is one event of a watch of whole objects, as a frame of protobuf.
func event(t testing.TB, kind, object string) string {
	e := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: asProtobuf(t, object)}}
	b, err := e.Marshal()
	if err != nil {
		t.Error(err)
	}
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(b)))) + string(b)
}

// watch answers with the events of the nth watch.
func (a *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string, n int) {
	if whole(resource) {
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	}
	w.WriteHeader(http.StatusOK)
	watches := a.watches[resource]
	if n < len(watches) {
		for _, e := range watches[n] {
			_, _ = io.WriteString(w, e)
		}
	}
	_ = http.NewResponseController(w).Flush()
	if n >= len(watches)-1 {
		<-r.Context().Done()
	}
}

// asked returns, for the requests of a resource, what f says.
func (a *apiServer) asked(resource string, f func(*http.Request) string) (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.requests {
		if strings.HasSuffix(r.URL.Path, "/"+resource) {
			if s := f(r); s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

// run runs a source on the API server until the end of the test.
func run(t *testing.T, a *apiServer) (*source.Source, *sink, *prometheus.Registry) {
	t.Helper()
	return runWith(t, a, nil)
}

// runWith does so with a roster.
func runWith(t *testing.T, a *apiServer, r source.Roster) (*source.Source, *sink, *prometheus.Registry) {
	t.Helper()
	a.t, a.opened = t, map[string]int{}
	server := httptest.NewServer(a)
	registry, to := prometheus.NewRegistry(), &sink{}
	cfg := &rest.Config{Host: server.URL}
	s, err := source.New(cfg, to, r, slog.New(slog.DiscardHandler), source.NewMetrics(registry))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		server.CloseClientConnections()
		server.Close()
	})
	return s, to, registry
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func podJSON(uid, version string) string {
	return fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":%[1]q,"namespace":"n","uid":%[1]q,"resourceVersion":%[2]q,
		"labels":{"app":"x"},"annotations":{"secret":"yes"},"ownerReferences":[
		{"apiVersion":"v1","kind":"Node","name":"no","uid":"not-the-controller"},
		{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"rs","controller":true}]},
		"spec":{"nodeName":"node-1","containers":[{"name":"c","image":"secret"}]},"status":{"phase":"Running","podIP":"10.1.2.3"}}`, uid, version)
}

// TestTrims: what the sink is fed is what the index needs, from whole objects
// and from metadata.
func TestTrims(t *testing.T) {
	a := &apiServer{lists: map[string][]string{
		"pods":        {podJSON("p1", "3")},
		"deployments": {`{"metadata":{"name":"d","namespace":"n","uid":"d","resourceVersion":"2","annotations":{"secret":"yes"}}}`},
		"endpointslices": {`{"metadata":{"name":"s","namespace":"n","uid":"s","labels":{"kubernetes.io/service-name":"svc"}},"addressType":"IPv4","endpoints":[
			{"addresses":["10.1.2.3"],"targetRef":{"kind":"Pod","name":"p1","namespace":"n","uid":"p1"}},
			{"addresses":["10.1.2.4"],"targetRef":{"kind":"Node","uid":"not-a-pod"}},
			{"addresses":["10.1.2.5"],"targetRef":{"kind":"Pod"}},
			{"addresses":["10.1.2.6"]}]}`},
	}}
	s, to, _ := run(t, a)
	<-s.Synced()
	pod, _ := to.get(relation.Pod, "p1")
	if pod.Node != "node-1" || pod.Namespace != "n" || pod.Owner != (relation.Owner{Kind: "ReplicaSet", UID: "rs"}) {
		t.Errorf("pod is fed as %+v", pod)
	}
	slice, _ := to.get(relation.EndpointSlice, "s")
	if diff := cmp.Diff([]string{"p1"}, slice.Endpoints); slice.Service != "svc" || diff != "" {
		t.Errorf("slice of %q (-want +got):\n%s", slice.Service, diff)
	}
	deployment, _ := to.get(relation.Deployment, "d")
	for _, o := range []relation.Object{pod, deployment} {
		if text := fmt.Sprintf("%s", o); o.UID == "" || strings.Contains(text, "secret") {
			t.Errorf("%s is fed with more than is needed: %s", o.Kind, text)
		}
	}
}

// TestGoesOnWhereItWas: a watch that ends is opened again from the version of
// the last event, so the version must survive the trimming. Lost, the updates
// would silently end some day.
func TestGoesOnWhereItWas(t *testing.T) {
	a := &apiServer{
		lists: map[string][]string{"pods": {podJSON("p1", "3"), podJSON("p2", "4")}},
		watches: map[string][][]string{"pods": {
			{event(t, "ADDED", podJSON("p3", "6"))},
			{event(t, "MODIFIED", podJSON("p3", "7")), event(t, "DELETED", podJSON("p1", "8"))},
			nil,
		}},
	}
	s, to, registry := run(t, a)
	<-s.Synced()
	eventually(t, "three watches", func() bool {
		return len(a.asked("pods", func(r *http.Request) string {
			if r.URL.Query().Get("sendInitialEvents") != "" {
				return ""
			}
			return r.URL.Query().Get("watch")
		})) == 3
	})
	versions := a.asked("pods", func(r *http.Request) string {
		q := r.URL.Query()
		if q.Get("watch") == "" || q.Get("sendInitialEvents") != "" {
			return ""
		}
		return q.Get("resourceVersion")
	})
	if diff := cmp.Diff([]string{"5", "6", "8"}, versions); diff != "" {
		t.Errorf("versions that were watched from (-want +got):\n%s", diff)
	}
	for uid, want := range map[string]bool{"p1": false, "p2": true, "p3": true} {
		if _, ok := to.get(relation.Pod, uid); ok != want {
			t.Errorf("%s is held: %t, want %t", uid, ok, want)
		}
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

// TestPages: a list is read in pages, and never with a version for which the
// API server ignores the limit.
func TestPages(t *testing.T) {
	a := &apiServer{lists: map[string][]string{"pods": {podJSON("p1", "1"), podJSON("p2", "2"), podJSON("p3", "3")}}}
	s, to, _ := run(t, a)
	<-s.Synced()
	for _, uid := range []string{"p1", "p2", "p3"} {
		if _, ok := to.get(relation.Pod, uid); !ok {
			t.Errorf("%s of a later page is missing", uid)
		}
	}
	for _, k := range source.Kinds() {
		for _, query := range a.asked(k.Resource.Resource, func(r *http.Request) string {
			if r.URL.Query().Get("watch") != "" {
				return ""
			}
			return "?" + r.URL.RawQuery
		}) {
			if !strings.Contains(query, "limit=500") || strings.Contains(query, "resourceVersion=0") {
				t.Errorf("%s: a list without pages: %s", k.Resource.Resource, query)
			}
		}
	}
}

// TestKindThatIsNotServed is reported and does not keep the others from being
// synced; a kind that is required does.
func TestKindThatIsNotServed(t *testing.T) {
	for name, c := range map[string]struct {
		missing string
		kind    relation.Kind
		synced  bool
	}{
		"another":  {"cronjobs", relation.CronJob, true},
		"required": {"namespaces", relation.Namespace, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := run(t, &apiServer{missing: []string{c.missing}})
			eventually(t, "every other kind is listed, and this one refused", func() bool {
				for _, state := range s.States() {
					if refused := state.Kind.Kind == c.kind; (state.Refused != nil) != refused || state.Listed == refused {
						return false
					}
				}
				return true
			})
			select {
			case <-s.Synced():
				if !c.synced {
					t.Error("synced without a kind that is required")
				}
			default:
				if c.synced {
					t.Error("not synced")
				}
			}
		})
	}
}
