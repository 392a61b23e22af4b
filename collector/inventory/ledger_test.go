package inventory

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func podType() Type {
	return Type{Name: "pods", Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true}
}

func deploymentType() Type {
	return Type{Name: "deployments.apps", Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", Namespaced: true}
}

func fakeState() State {
	return State{API: fake.NewClientset(), Namespace: "metawire", Lease: "sender", Report: "report", Index: "index"}
}

// identityOf is one of a type in a version.
func identityOf(t Type, name, version string) Identity {
	return Identity{UID: "uid-" + name, APIVersion: t.APIVersion(), Kind: t.Kind, Namespace: "shop", Name: name, ResourceVersion: version}
}

// listing is a type and what the API server returns for it.
type listing struct {
	Type

	failed  bool     // after these objects
	objects []string // name@version
}

// told is what a run told.
type told struct {
	Complete      bool
	Changed, Gone []string
}

// ledgerRun makes a run as an Inventory does.
func ledgerRun(t *testing.T, s State, o LedgerOptions, acknowledged bool, listings ...listing) (out told) {
	t.Helper()
	l := NewLedger(s, o)
	var err error
	if out.Complete, err = l.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, list := range listings {
		for _, spec := range list.objects {
			var name, version string
			if _, err := fmt.Sscanf(spec, "%1s@%s", &name, &version); err != nil {
				t.Fatal(err)
			}
			id := identityOf(list.Type, name, version)
			if l.Changed(list.Type, id) {
				l.Sent(list.Type, id)
				out.Changed = append(out.Changed, spec)
			}
		}
		if !list.failed {
			for _, g := range l.Gone(list.Type) {
				out.Gone = append(out.Gone, g.APIVersion+" "+g.Kind+" "+g.Namespace+"/"+g.Name+" "+g.UID)
			}
		}
	}
	if err := l.End(t.Context(), acknowledged); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLedger: each run is of a process of its own.
func TestLedger(t *testing.T) {
	t.Parallel()
	type step struct {
		list []listing
		lost bool // not acknowledged
		want told
	}
	of := func(objects ...string) []listing { return []listing{{Type: podType(), objects: objects}} }
	broken := func(objects ...string) []listing {
		return []listing{{Type: podType(), objects: objects, failed: true}}
	}
	v2 := deploymentType()
	v2.Version = "v2"
	gone := func(name string) []string { return []string{"v1 Pod shop/" + name + " uid-" + name} }
	for name, steps := range map[string][]step{
		"what changed, after a restart": {
			{list: of("a@1", "b@1"), want: told{Complete: true, Changed: []string{"a@1", "b@1"}}},
			{list: of("a@1", "b@2", "c@1"), want: told{Changed: []string{"b@2", "c@1"}}},
			{list: of("b@2", "c@1"), want: told{Gone: gone("a")}},
			{list: of("b@2", "c@1")},
		},
		"all again after some runs": {
			{list: of("a@1"), want: told{Complete: true, Changed: []string{"a@1"}}},
			{list: of("a@1")},
			{list: of("a@1")},
			{list: of("a@1")},
			{list: of("a@1"), want: told{Complete: true, Changed: []string{"a@1"}}},
			{list: of("a@1")},
		},
		"a type that failed deletes nothing": {
			{list: of("a@1", "b@1"), want: told{Complete: true, Changed: []string{"a@1", "b@1"}}},
			{list: broken("b@2", "c@1"), want: told{Changed: []string{"b@2", "c@1"}}},
			{list: of("b@2"), want: told{Gone: []string{"v1 Pod shop/a uid-a", "v1 Pod shop/c uid-c"}}},
		},
		"a run that was not acknowledged is told again": {
			{list: of("a@1", "b@1"), want: told{Complete: true, Changed: []string{"a@1", "b@1"}}},
			{list: of("a@2", "c@1"), lost: true, want: told{Changed: []string{"a@2", "c@1"}, Gone: gone("b")}},
			{list: of("a@2", "c@1"), want: told{Changed: []string{"a@2", "c@1"}, Gone: gone("b")}},
			{list: of("a@2", "c@1")},
		},
		"what may have arrived is told to be gone": {
			{list: of("a@1"), want: told{Complete: true, Changed: []string{"a@1"}}},
			{list: of("a@1", "b@1"), lost: true, want: told{Changed: []string{"b@1"}}},
			{list: of("a@1"), want: told{Gone: gone("b")}},
		},
		"a complete run that was not acknowledged is due still": {
			{list: of("a@1"), lost: true, want: told{Complete: true, Changed: []string{"a@1"}}},
			{list: of("a@1"), want: told{Complete: true, Changed: []string{"a@1"}}},
			{list: of("a@1")},
		},
		"a type that is served in another version": {
			{list: []listing{{Type: deploymentType(), objects: []string{"a@1", "b@1"}}}, want: told{Complete: true, Changed: []string{"a@1", "b@1"}}},
			{list: []listing{{Type: v2, objects: []string{"a@1"}}}, want: told{Changed: []string{"a@1"}, Gone: []string{"apps/v1 Deployment shop/b uid-b"}}},
			{list: []listing{{Type: v2, objects: []string{"a@1"}}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeState()
			for i, step := range steps {
				got := ledgerRun(t, s, LedgerOptions{CompleteEvery: 4}, !step.lost, step.list...)
				if diff := cmp.Diff(step.want, got); diff != "" {
					t.Fatalf("run %d (-want +got):\n%s", i+1, diff)
				}
			}
		})
	}
}

// TestLedgerIsLost: then a run sends everything, and repairs it.
func TestLedgerIsLost(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, s State){
		"a shard is gone": func(t *testing.T, s State) {
			if err := s.API.CoreV1().ConfigMaps(s.Namespace).Delete(t.Context(), "index-1", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"a shard is cut off": func(t *testing.T, s State) {
			spoilShard(t, s, func(c *corev1.ConfigMap) { c.BinaryData[shardKey] = c.BinaryData[shardKey][:100] })
		},
		"a byte is another": func(t *testing.T, s State) {
			spoilShard(t, s, func(c *corev1.ConfigMap) { c.BinaryData[shardKey][200] ^= 1 })
		},
		"a shard is not of this generation": func(t *testing.T, s State) {
			c, err := s.get(t.Context(), "index-1")
			if err != nil {
				t.Fatal(err)
			}
			manyPods(t, s, usualShard+1, false)
			spoilShard(t, s, func(now *corev1.ConfigMap) { now.BinaryData = c.BinaryData })
		},
		"another Metawire wrote it": func(t *testing.T, s State) {
			l := NewLedger(s, LedgerOptions{Basis: "another endpoint"})
			if _, err := l.Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := l.End(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeState()
			manyPods(t, s, usualShard+1, true)
			spoil(t, s)
			manyPods(t, s, usualShard+1, true)
			manyPods(t, s, usualShard+1, false)
		})
	}
}

func spoilShard(t *testing.T, s State, change func(*corev1.ConfigMap)) {
	t.Helper()
	c, err := s.get(t.Context(), "index-1")
	if err != nil {
		t.Fatal(err)
	}
	change(c)
	if _, err := s.API.CoreV1().ConfigMaps(s.Namespace).Update(t.Context(), c, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// manyPods runs over pods with names and UIDs such as clusters have.
func manyPods(t *testing.T, s State, n int, complete bool) {
	t.Helper()
	l := NewLedger(s, LedgerOptions{})
	got, err := l.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got != complete {
		t.Fatalf("the run is complete: %t, want %t", got, complete)
	}
	for i := range n {
		uid := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, i)).String()
		id := Identity{
			UID: uid, Namespace: fmt.Sprintf("team-%d", i%40), Name: fmt.Sprintf("service-%d-%s-%s", i%700, uid[:9], uid[10:15]),
			ResourceVersion: fmt.Sprint(123456789 + i*37%1000000),
		}
		if changed := l.Changed(podType(), id); changed != complete {
			t.Fatalf("object %d changed: %t, want %t", i, changed, complete)
		} else if changed {
			l.Sent(podType(), id)
		}
	}
	if err := l.End(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}

// TestLedgerOfAnother: a replica that lost the Lease during its run does not
// write over what the next one has kept.
func TestLedgerOfAnother(t *testing.T) {
	t.Parallel()
	s := fakeState()
	manyPods(t, s, 10, true)
	late := NewLedger(s, LedgerOptions{})
	if _, err := late.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	manyPods(t, s, 10, false)
	if err := late.End(t.Context(), true); err == nil {
		t.Error("the ledger of another was written over")
	}
	manyPods(t, s, 10, false)
}

// TestLedgerFits: no ConfigMap passes what the API server takes, and those that
// are no longer needed go.
func TestLedgerFits(t *testing.T) {
	t.Parallel()
	s := fakeState()
	sizes := func() (all []int) {
		list, err := s.API.CoreV1().ConfigMaps(s.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Items {
			all = append(all, len(c.BinaryData[shardKey]))
		}
		return all
	}
	manyPods(t, s, 50_000, true)
	got := sizes()
	t.Logf("50,000 objects: shards of %d bytes", got)
	if len(got) == 0 || len(got) > 8 || slices.Max(got) > maxShardSize {
		t.Errorf("50,000 objects are in shards of %d bytes, want at most 8 of %d", got, maxShardSize)
	}
	manyPods(t, s, 50_000, false)

	l := NewLedger(s, LedgerOptions{})
	if _, err := l.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gone := l.Gone(podType()); len(gone) != 50_000 {
		t.Errorf("%d objects are gone, want all", len(gone))
	}
	if err := l.End(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := sizes(); len(got) != 1 {
		t.Errorf("nothing is in %d shards, want one", len(got))
	}
}

// TestLedgerGrowsShards: objects with names that do not pack.
func TestLedgerGrowsShards(t *testing.T) {
	t.Parallel()
	l := NewLedger(fakeState(), LedgerOptions{})
	if _, err := l.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range usualShard - 1 {
		id := Identity{UID: uuid.NewString(), Name: uuid.NewString() + uuid.NewString() + uuid.NewString() + uuid.NewString(), ResourceVersion: "1"}
		l.Sent(podType(), id)
	}
	if err := l.End(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	parts, err := l.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 2 {
		t.Errorf("%d shards, want 2", len(parts))
	}
}
