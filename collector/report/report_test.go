package report_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/collector/report"
	"github.com/metawire/metawire/collector/roster"
	"github.com/metawire/metawire/internal/wiring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// events is an API server of Events only. Two replicas may share it.
type events struct {
	mu     sync.Mutex
	asked  int
	made   map[string]*corev1.Event
	refuse int // so many are refused first
}

func (e *events) Create(_ context.Context, event *corev1.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	name := event.Namespace + "/" + event.Name
	switch {
	case e.refuse > 0:
		e.refuse--
		return errors.New("refused")
	case e.made[name] != nil:
		return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "events"}, event.Name)
	}
	if e.made == nil {
		e.made = map[string]*corev1.Event{}
	}
	e.made[name] = event
	return nil
}

func (e *events) all() (all []*corev1.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.made {
		all = append(all, event)
	}
	return all
}

var now = time.Unix(1_000_000, 0)

func options() report.Options {
	return report.Options{
		CA: func() []string { return []string{"today"} }, Settle: time.Millisecond, Again: 10 * time.Millisecond, Retry: time.Millisecond,
		Now: func() time.Time { return now },
	}
}

// start runs a report on a roster until the end of the test.
func start(t *testing.T, r *roster.Roster, e report.Events, o report.Options) *prometheus.Registry {
	t.Helper()
	r.ReplaceNamespaces([]roster.Namespace{
		{Name: "falco", UID: "1", Labels: map[string]string{"team": "a"}}, {Name: "kube-system", UID: "2"},
		{Name: "out", UID: "3", Labels: map[string]string{"team": "a", wiring.InjectAnnotation: "false"}}, {Name: "other", UID: "4"},
	})
	registry := prometheus.NewRegistry()
	one := report.New(r, e, slog.New(slog.DiscardHandler), report.NewMetrics(registry), o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := one.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return registry
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// pods returns the numbers of pods by state that are not 0.
func pods(t *testing.T, registry *prometheus.Registry) map[string]int {
	t.Helper()
	return byState(t, registry, "metawire_falco_pods")
}

// byState returns a metric's figures by state that are not 0.
func byState(t *testing.T, registry *prometheus.Registry, name string) map[string]int {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if n := m.GetGauge().GetValue(); f.GetName() == name && n != 0 {
				all[m.GetLabel()[0].GetValue()] = int(n)
			}
		}
	}
	return all
}

// falcoPod is one that runs, made long ago by a DaemonSet.
func falcoPod(change func(*roster.Pod)) roster.Pod {
	p := roster.Pod{
		UID: "u", Namespace: "falco", Name: "falco-x2x7z", Node: "n", Running: true, Falco: true,
		Created: now.Add(-time.Hour), Owner: wiring.Owner{Kind: "DaemonSet", Name: "falco"},
	}
	change(&p)
	return p
}

// wired is a pod that the webhook wired and whose init container said this.
func wired(v wiring.Verdict) func(*roster.Pod) {
	return func(p *roster.Pod) {
		p.Status = &wiring.Status{Outcome: wiring.Wired, CAs: []string{"today"}}
		p.Init = wiring.Init{State: wiring.InitDone, Message: v.String()}
	}
}

func waiting(state wiring.InitState, created, since time.Duration) func(*roster.Pod) {
	return func(p *roster.Pod) {
		wired(wiring.Verdict{})(p)
		p.Running, p.Created = false, now.Add(-created)
		p.Init = wiring.Init{State: state, Reason: "ImagePullBackOff", Since: now.Add(-since)}
	}
}

// TestStates: what is with a pod, and what people are told of it.
func TestStates(t *testing.T) {
	const restart = "kubectl -n falco rollout restart daemonset/falco"
	ok := wiring.Verdict{Wired: true, Ticket: true}
	for name, c := range map[string]struct {
		change func(*roster.Pod)
		state  string   // empty: not counted
		reason string   // empty: no Event
		says   []string // of the Event
	}{
		"wired":                 {wired(ok), "wired", "", nil},
		"stood down by webhook": {func(p *roster.Pod) { p.Status = &wiring.Status{Outcome: wiring.StoodDown} }, "stood_down", "", nil},
		"could not be wired": {func(p *roster.Pod) {
			p.Status = &wiring.Status{Outcome: wiring.NotWired, Reason: "Falco 0.38.0 is too old"}
		}, "unwired", "NotWired", []string{"could not wire it: Falco 0.38.0 is too old. Change that first", restart}},
		"could not be, not running yet": {func(p *roster.Pod) { p.Running, p.Status = false, &wiring.Status{Outcome: wiring.NotWired} }, "pending", "", nil},
		"stood down by container":       {wired(wiring.Verdict{StoodDown: true}), "stood_down", "", nil},
		"never looked at":               {func(*roster.Pod) {}, "unwired", "NotWired", []string{"the webhook did not see", restart, `metawire.dev/inject: "false"`}},
		"not running yet":               {func(p *roster.Pod) { p.Running = false }, "pending", "", nil},
		"opted out":                     {func(p *roster.Pod) { p.OptedOut = true }, "opted_out", "", nil},
		"kube-system":                   {func(p *roster.Pod) { p.Namespace = "kube-system" }, "opted_out", "", nil},
		"a namespace that opted out":    {func(p *roster.Pod) { p.Namespace = "out" }, "opted_out", "", nil},
		"a namespace not selected":      {func(p *roster.Pod) { p.Namespace = "other" }, "opted_out", "", nil},
		"a namespace not known":         {func(p *roster.Pod) { p.Namespace = "new" }, "opted_out", "", nil},
		"finished":                      {func(p *roster.Pod) { p.Running, p.Finished = false, true }, "", "", nil},
		"not Falco":                     {func(p *roster.Pod) { p.Falco, p.OptedIn = false, true }, "", "", nil},
		"container failed":              {wired(wiring.Verdict{Reason: "the registry does not answer."}), "unwired", "NotWired", []string{": the registry does not answer. To", restart}},
		"container said nothing": {func(p *roster.Pod) { wired(ok)(p); p.Init.Message = "killed" }, "unwired", "NotWired",
			[]string{"without saying"}},
		"without the container": {func(p *roster.Pod) { wired(ok)(p); p.Init = wiring.Init{} }, "unwired", "NotWired", []string{"without the init container"}},
		"without a ticket": {wired(wiring.Verdict{Wired: true, Reason: "the collector did not answer"}), "wired_without_ticket", "NoTicket",
			[]string{"decides by the pod's address", restart, "did not answer"}},
		"without ticket and TLS": {func(p *roster.Pod) { wired(wiring.Verdict{Wired: true})(p); p.Status.CAs = nil }, "wired_without_ticket", "", nil},
		"behind others":          {waiting(wiring.InitBehind, time.Hour, time.Hour), "pending", "", nil},
		"before the container":   {func(p *roster.Pod) { wired(ok)(p); p.Init, p.Running = wiring.Init{}, false }, "pending", "", nil},
		"waits":                  {waiting(wiring.InitWaiting, time.Hour, time.Minute), "pending", "", nil},
		"waits too long":         {waiting(wiring.InitWaiting, time.Hour, 2*time.Minute), "waiting", "WaitingForMetawire", []string{"2m0s", "(ImagePullBackOff)", "webhook.imagePullSecrets", restart}},
		"container runs":         {waiting(wiring.InitRunning, time.Hour, time.Minute), "pending", "", nil},
		"container runs forever": {waiting(wiring.InitRunning, time.Hour, 3*time.Minute), "waiting", "WaitingForMetawire", nil},
		"authority of yesterday": {func(p *roster.Pod) { wired(ok)(p); p.Status.CAs = []string{"yesterday"} }, "outdated", "OutdatedAuthority", []string{restart}},
		"of both days":           {func(p *roster.Pod) { wired(ok)(p); p.Status.CAs = []string{"yesterday", "today"} }, "wired", "", nil},
		"without TLS":            {func(p *roster.Pod) { wired(ok)(p); p.Status.CAs = nil }, "wired", "", nil},
		"of a ReplicaSet":        {func(p *roster.Pod) { p.Owner = wiring.Owner{Kind: "ReplicaSet", Name: "f"} }, "unwired", "NotWired", []string{"kubectl -n falco delete pod falco-x2x7z"}},
		"of nobody":              {func(p *roster.Pod) { p.Owner = wiring.Owner{} }, "unwired", "NotWired", []string{"delete pod falco-x2x7z in namespace falco and create it again"}},
		"a long name and story": {func(p *roster.Pod) {
			wired(wiring.Verdict{Reason: strings.Repeat("é", 2000)})(p)
			p.Name = strings.Repeat("x.", 126)
		}, "unwired", "NotWired", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, e := roster.New(), &events{}
			// The second pod tells that the first was looked at.
			seen := falcoPod(wired(ok))
			seen.UID = "seen"
			r.ReplacePods(slices.Values([]roster.Pod{falcoPod(c.change), seen}))
			o := options()
			o.Namespaces = labels.SelectorFromSet(labels.Set{"team": "a"})
			registry := start(t, r, e, o)
			want := map[string]int{"wired": 1}
			if c.state != "" {
				want[c.state]++
			}
			eventually(t, "an event and a count", func() bool {
				return cmp.Equal(want, pods(t, registry)) && (len(e.all()) > 0 || c.reason == "")
			})
			if c.reason == "" {
				if all := e.all(); len(all) > 0 {
					t.Errorf("an Event: %s: %s", all[0].Reason, all[0].Message)
				}
				return
			}
			event := e.all()[0]
			if event.Type != "Warning" || event.Reason != c.reason || event.Namespace != "falco" || string(event.InvolvedObject.UID) != "u" || event.InvolvedObject.Namespace != "falco" {
				t.Errorf("%+v", event)
			}
			if len(event.Name) > 253 || len(event.Message) > 1024 || !strings.HasPrefix(event.Name, event.InvolvedObject.Name[:9]) {
				t.Errorf("the API server takes no Event %q with %d bytes", event.Name, len(event.Message))
			}
			for _, s := range c.says {
				if !strings.Contains(event.Message, s) {
					t.Errorf("the message %q lacks %q", event.Message, s)
				}
			}
		})
	}
}

// TestOnce: one Event a pod and reason, however often it changes and however
// many replicas look.
func TestOnce(t *testing.T) {
	r, e := roster.New(), &events{}
	r.ReplacePods(slices.Values([]roster.Pod{falcoPod(func(*roster.Pod) {})}))
	first, second := start(t, r, e, options()), start(t, r, e, options())
	asked := func() int {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.asked
	}
	eventually(t, "both have asked", func() bool { return asked() == 2 })
	r.ApplyPod(falcoPod(func(p *roster.Pod) { p.Addresses = nil }))
	r.ApplyPod(falcoPod(func(p *roster.Pod) { p.UID = "another" }))
	eventually(t, "the other pod is told of", func() bool { return asked() == 4 })
	if n := len(e.all()); n != 2 {
		t.Errorf("%d Events of two pods", n)
	}
	made := 0.0
	for _, registry := range []*prometheus.Registry{first, second} {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				made += m.GetCounter().GetValue()
			}
		}
	}
	if made != 2 {
		t.Errorf("%v Events are counted", made)
	}
	problems, err := testutil.GatherAndLint(first)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

// TestTriesAgain: an Event that is refused is made later.
func TestTriesAgain(t *testing.T) {
	r, e := roster.New(), &events{refuse: 7}
	r.ReplacePods(slices.Values(tenPods()))
	start(t, r, e, options())
	eventually(t, "all are made", func() bool { return len(e.all()) == 10 })
}

// slow is an API server that answers nothing until it is released.
type slow struct {
	events

	release chan struct{}
	begun   chan struct{}
}

func (s *slow) Create(ctx context.Context, e *corev1.Event) error {
	s.begun <- struct{}{}
	select {
	case <-s.release:
		return s.events.Create(ctx, e)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestMetricIsTrueMeanwhile: an API server that does not answer freezes no
// metric, and a request to it ends.
func TestMetricIsTrueMeanwhile(t *testing.T) {
	r, e, o := roster.New(), &slow{release: make(chan struct{}), begun: make(chan struct{}, 1000)}, options()
	o.Timeout = 100 * time.Millisecond
	r.ReplacePods(slices.Values(tenPods()))
	registry := start(t, r, e, o)
	<-e.begun
	r.DeletePod("a")
	eventually(t, "the pod is counted no more", func() bool { return pods(t, registry)["unwired"] == 9 })
	<-e.begun // the first has ended
	close(e.release)
	eventually(t, "all are told of", func() bool { return len(e.all()) >= 9 })
}

// refusing refuses the Events of some pods.
type refusing struct {
	events

	uids []types.UID
}

func (e *refusing) Create(ctx context.Context, event *corev1.Event) error {
	if slices.Contains(e.uids, event.InvolvedObject.UID) {
		return errors.New("refused")
	}
	return e.events.Create(ctx, event)
}

// TestFailuresStopNoOthers: Events that always fail keep none from being made,
// however many they are.
func TestFailuresStopNoOthers(t *testing.T) {
	const all = 100
	for _, failing := range []int{1, all - 2} {
		t.Run(fmt.Sprint(failing), func(t *testing.T) {
			r, e, o := roster.New(), &refusing{}, options()
			o.Again = time.Hour
			var pods []roster.Pod
			for i := range all {
				p := falcoPod(func(p *roster.Pod) { p.UID = fmt.Sprint(i) })
				if pods = append(pods, p); i < failing {
					e.uids = append(e.uids, types.UID(p.UID))
				}
			}
			r.ReplacePods(slices.Values(pods))
			start(t, r, e, o)
			eventually(t, "the others are made", func() bool { return len(e.all()) == all-failing })
		})
	}
}

// TestTellsOfManyAtOnce: 200 pods are told of without a pause.
func TestTellsOfManyAtOnce(t *testing.T) {
	r, e, o := roster.New(), &events{}, options()
	o.Rate = 0.001 // the burst alone
	var all []roster.Pod
	for i := range 200 {
		all = append(all, falcoPod(func(p *roster.Pod) { p.UID = fmt.Sprint(i) }))
	}
	r.ReplacePods(slices.Values(all))
	start(t, r, e, o)
	eventually(t, "all are told of", func() bool { return len(e.all()) == 200 })
}

// TestNoTicketsToGive: where the collector gives none, none is missing.
func TestNoTicketsToGive(t *testing.T) {
	r, e, o := roster.New(), &events{}, options()
	o.NoTickets = true
	r.ReplacePods(slices.Values([]roster.Pod{falcoPod(wired(wiring.Verdict{Wired: true}))}))
	registry := start(t, r, e, o)
	eventually(t, "the pod is counted", func() bool { return cmp.Equal(map[string]int{"wired": 1}, pods(t, registry)) })
}

// TestWaitsOnlyForOurs: what other init containers take is not ours.
func TestWaitsOnlyForOurs(t *testing.T) {
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	done := func(code int32, d time.Duration) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: "first", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: ago(d)}}}
	}
	runs := func(started bool) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: "first", Started: &started, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(time.Hour)}}}
	}
	ours := func(reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: wiring.InitContainer, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	const initializing = "PodInitializing"
	for name, c := range map[string]struct {
		init  []corev1.ContainerStatus
		bound time.Duration // ago
		want  wiring.State
	}{
		"alone, for long":                     {[]corev1.ContainerStatus{ours(initializing)}, time.Hour, wiring.StateWaiting},
		"bound a moment ago":                  {[]corev1.ContainerStatus{ours(initializing)}, time.Minute, wiring.StatePending},
		"behind one that runs":                {[]corev1.ContainerStatus{runs(false), ours(initializing)}, time.Hour, wiring.StatePending},
		"behind one that failed":              {[]corev1.ContainerStatus{done(1, time.Hour), ours(initializing)}, time.Hour, wiring.StatePending},
		"behind one that waits":               {[]corev1.ContainerStatus{{Name: "first"}, ours(initializing)}, time.Hour, wiring.StatePending},
		"after one that ended a moment ago":   {[]corev1.ContainerStatus{done(0, time.Minute), ours(initializing)}, time.Hour, wiring.StatePending},
		"after one that ended long ago":       {[]corev1.ContainerStatus{done(0, time.Hour), ours(initializing)}, time.Hour, wiring.StateWaiting},
		"after a sidecar that began long ago": {[]corev1.ContainerStatus{runs(true), ours(initializing)}, time.Hour, wiring.StateWaiting},
		"no image, a moment ago":              {[]corev1.ContainerStatus{done(0, time.Minute), ours("ImagePullBackOff")}, time.Hour, wiring.StatePending},
		"no image, for long":                  {[]corev1.ContainerStatus{done(0, time.Hour), ours("ImagePullBackOff")}, time.Hour, wiring.StateWaiting},
	} {
		t.Run(name, func(t *testing.T) {
			p := corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Name: "p", Namespace: "falco", CreationTimestamp: ago(2 * time.Hour),
					Annotations: map[string]string{wiring.StatusAnnotation: wiring.Status{Outcome: wiring.Wired}.String()},
				},
				Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: c.init, Conditions: []corev1.PodCondition{
					{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: ago(c.bound)},
				}},
			}
			got := wiring.Judge{Now: now}.Pod(wiring.PodOf(&p))
			if got.State != c.want {
				t.Errorf("%s, want %s: %s", got.State, c.want, got.Message)
			}
		})
	}
}

// TestSparesAnAPIServerThatRefuses: after five refusals nothing is asked until
// it is time to try again, whatever changes.
func TestSparesAnAPIServerThatRefuses(t *testing.T) {
	r, e, o := roster.New(), &events{refuse: 1000}, options()
	o.Retry = time.Hour
	r.ReplacePods(slices.Values(tenPods()))
	registry := start(t, r, e, o)
	for i := range 3 {
		r.ApplyPod(falcoPod(func(p *roster.Pod) { p.UID = strings.Repeat("x", i+1) }))
		eventually(t, "the pod is counted", func() bool { return pods(t, registry)["unwired"] == 11+i })
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asked != 5 {
		t.Errorf("%d requests, want 5", e.asked)
	}
}

func tenPods() (all []roster.Pod) {
	for uid := range strings.SplitSeq("abcdefghij", "") {
		all = append(all, falcoPod(func(p *roster.Pod) { p.UID = uid }))
	}
	return all
}

// TestWaitsForThePods: a roster that is half full tells nothing; and a report
// without Events counts.
func TestWaitsForThePods(t *testing.T) {
	r := roster.New()
	r.ApplyPod(falcoPod(func(*roster.Pod) {}))
	registry := start(t, r, nil, options())
	if got := pods(t, registry); len(got) > 0 {
		t.Errorf("counted before all are known: %v", got)
	}
	r.ReplacePods(slices.Values([]roster.Pod{falcoPod(func(*roster.Pod) {})}))
	eventually(t, "one is counted", func() bool { return cmp.Equal(map[string]int{"unwired": 1}, pods(t, registry)) })
	r.DeletePod("u")
	eventually(t, "none is counted", func() bool { return len(pods(t, registry)) == 0 })
}
