package view

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/metawire/metawire/collector/metadata"
)

// at is so many seconds after the subscription.
func at(seconds float64) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func entry(reason, kind, uid, namespace, name string) *metadata.Event {
	meta, _ := json.Marshal(metadata.Meta{Name: name, Namespace: namespace, UID: uid}) // strings only: cannot fail
	return &metadata.Event{Reason: reason, Kind: kind, Uid: uid, Meta: proto.String(string(meta))}
}

func pod(reason, uid, name, ip string, refs map[string][]string) *metadata.Event {
	e := entry(reason, "Pod", uid, "shop", name)
	e.Status = proto.String(fmt.Sprintf(`{"podIP":%q}`, ip))
	e.Refs = &metadata.References{Resources: map[string]*metadata.ListOfStrings{}}
	for kind, uids := range refs {
		e.Refs.Resources[kind] = &metadata.ListOfStrings{List: uids}
	}
	return e
}

func gone(kind, uid string) *metadata.Event {
	return &metadata.Event{Reason: metadata.Delete, Kind: kind, Uid: uid}
}

// shop is a first view.
func shop(t *testing.T) *View {
	t.Helper()
	v := New("worker-1")
	v.Subscribed(at(0))
	for _, e := range []*metadata.Event{
		entry("Create", "Namespace", "n", "", "shop"),
		entry("Create", "Deployment", "d", "shop", "web"),
		entry("Create", "ReplicaSet", "r", "shop", "web-5d"),
		entry("Create", "Service", "s2", "shop", "web"),
		entry("Create", "Service", "s1", "shop", "all"),
		pod("Create", "p", "web-5d-x1", "10.0.0.1", map[string][]string{
			"Namespace": {"n"}, "ReplicaSet": {"r"}, "Deployment": {"d"}, "Service": {"s2", "s1"},
		}),
	} {
		apply(t, v, e, at(0.1))
	}
	v.Advance(at(1))
	return v
}

func apply(t *testing.T, v *View, e *metadata.Event, now time.Time) Identity {
	t.Helper()
	id, err := v.Apply(e, now)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// show writes rows as text, one a line.
func show(rows []Row) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%s|%s|%s|%s|%s|%s|%s|%s\n", r.Change, r.Kind, r.Namespace, r.Name, r.IP, r.Owner, r.Services, r.Last)
	}
	return b.String()
}

func TestRowsOfAFirstView(t *testing.T) {
	const want = `|Pod|shop|web-5d-x1|10.0.0.1|Deployment/web|all,web|seen 1s
|Namespace||shop||||seen 1s
|Deployment|shop|web||||seen 1s
|ReplicaSet|shop|web-5d||||seen 1s
|Service|shop|all||||seen 1s
|Service|shop|web||||seen 1s
`
	if diff := cmp.Diff(want, show(shop(t).Rows(at(1.5)))); diff != "" {
		t.Error(diff)
	}
}

func TestOwner(t *testing.T) {
	for name, tc := range map[string]struct {
		refs map[string][]string
		want string
	}{
		"none":                              {map[string][]string{"Namespace": {"n"}, "Service": {"s1"}}, ""},
		"a ReplicaSet that nobody controls": {map[string][]string{"ReplicaSet": {"r"}}, "ReplicaSet/web-5d"},
		"a ReplicaSet and its Deployment":   {map[string][]string{"ReplicaSet": {"r"}, "Deployment": {"d"}}, "Deployment/web"},
		"of a kind that was not asked for":  {map[string][]string{"StatefulSet": {"0a1b2c3d-4e5f"}}, "StatefulSet/0a1b2c3d"},
		"static pod":                        {map[string][]string{"Node": {"0a1b2c3d-4e5f"}}, "Node/worker-1"},
		"empty list":                        {map[string][]string{"DaemonSet": {}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := shop(t)
			apply(t, v, pod("Update", "p", "web-5d-x1", "10.0.0.1", tc.refs), at(2))
			if got := v.Rows(at(2))[0].Owner; got != tc.want {
				t.Errorf("Owner = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestChangesAreMarkedForTwoSeconds(t *testing.T) {
	for name, tc := range map[string]struct {
		event        *metadata.Event
		fresh, later string // the pods two tenths and two and a half seconds after
	}{
		"created": {
			pod("Create", "q", "web-5d-x2", "", nil),
			"|web-5d-x1|seen 3s created|web-5d-x2|created 0s",
			"|web-5d-x1|seen 5s |web-5d-x2|created 2s",
		},
		"updated": {
			pod("Update", "p", "web-5d-x1", "10.0.0.9", nil),
			"updated|web-5d-x1|updated 0s",
			"|web-5d-x1|updated 2s",
		},
		"deleted": {gone("Pod", "p"), "deleted|web-5d-x1|deleted 0s", ""},
		"said again, as after a reconnect": {
			pod("Create", "p", "web-5d-x1", "10.0.0.1", map[string][]string{
				"Namespace": {"n"}, "ReplicaSet": {"r"}, "Deployment": {"d"}, "Service": {"s2", "s1"},
			}),
			"|web-5d-x1|seen 3s", "|web-5d-x1|seen 5s",
		},
		"changed while away": {
			pod("Create", "p", "web-5d-x1", "10.0.0.9", nil),
			"updated|web-5d-x1|updated 0s", "|web-5d-x1|updated 2s",
		},
		"deleted, never seen": {gone("Pod", "z"), "|web-5d-x1|seen 3s", "|web-5d-x1|seen 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			v := shop(t)
			apply(t, v, tc.event, at(3))
			checkPods(t, v, at(3.2), tc.fresh)
			checkPods(t, v, at(5.5), tc.later)
		})
	}
}

func checkPods(t *testing.T, v *View, now time.Time, want string) {
	t.Helper()
	var got []string
	for _, r := range v.Rows(now) {
		if r.Kind == "Pod" {
			got = append(got, fmt.Sprintf("%s|%s|%s", r.Change, r.Name, r.Last))
		}
	}
	if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
		t.Error(diff)
	}
}

func TestDeletedAndMadeAgain(t *testing.T) {
	v := shop(t)
	apply(t, v, gone("Pod", "p"), at(3))
	apply(t, v, pod("Create", "p2", "web-5d-x1", "10.0.0.2", nil), at(3.1))
	checkPods(t, v, at(3.2), "deleted|web-5d-x1|deleted 0s created|web-5d-x1|created 0s")
	apply(t, v, pod("Create", "p", "web-5d-x1", "10.0.0.1", nil), at(3.3)) // the UID returns
	apply(t, v, gone("Pod", "p2"), at(3.4))
	checkPods(t, v, at(6), "|web-5d-x1|created 2s")
}

func TestIdentityOfAnEvent(t *testing.T) {
	v := shop(t)
	for want, e := range map[string]*metadata.Event{
		"Namespace shop":     entry("Create", "Namespace", "n", "", "shop"),
		"Pod shop/web-5d-x1": gone("Pod", "p"),
		"Service unseen":     gone("Service", "unseen"),
	} {
		if got := apply(t, v, e, at(3)).String(); got != want {
			t.Errorf("identity %q, want %q", got, want)
		}
	}
}

func TestEventsThatBreakTheContract(t *testing.T) {
	noStatus := pod("Create", "p", "web", "", nil)
	noStatus.Status = proto.String("")
	for want, e := range map[string]*metadata.Event{
		"meta of Pod p":           {Reason: "Create", Kind: "Pod", Uid: "p"},
		"status of Pod p":         noStatus,
		`unknown reason "Rename"`: {Reason: "Rename", Kind: "Pod", Uid: "p"},
	} {
		if _, err := New("n").Apply(e, at(0)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Apply(%v) = %v, want %q in it", e, err, want)
		}
	}
}

func TestAge(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 900 * time.Millisecond, "59s": 59 * time.Second, "1m": 119 * time.Second,
		"59m": 59 * time.Minute, "47h": 47 * time.Hour, "2d": 49 * time.Hour,
	} {
		if got := age(d); got != want {
			t.Errorf("age(%s) = %q, want %q", d, got, want)
		}
	}
}
