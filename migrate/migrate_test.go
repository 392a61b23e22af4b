package migrate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestAhead: a plan says what is to be done still, wherever a run ended, and
// nothing that does not concern it.
func TestAhead(t *testing.T) {
	streams, sends := &state{Deployment: &Object{}}, &state{CronJob: &Object{}}
	for _, tc := range []struct {
		of   *state
		from string
		want []string
	}{
		{streams, "", []string{"back up", "install", "verify", "hand over", "remove"}},
		{sends, "", []string{"back up", "pause", "install", "send", "verify", "remove"}},
		{streams, "back up", []string{"back up", "install", "verify", "hand over", "remove"}},
		{streams, "hand over", []string{"hand over", "remove"}},
		{sends, "remove", []string{"remove"}},
		{sends, PhaseKept, []string{"verify", "remove"}},
		{streams, PhaseKept, []string{"verify", "hand over", "remove"}},
		{sends, phaseDone, nil},
	} {
		var got []string
		for _, p := range tc.of.ahead(tc.from) {
			got = append(got, p.name)
			if p.final != (p.name == "remove") {
				t.Errorf("%s: final is %t", p.name, p.final)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("from %q (-want +got):\n%s", tc.from, diff)
		}
	}
	if got := sends.steps(PhaseRollBack); len(got) != 1 {
		t.Errorf("what is being undone goes on being undone, got %q", got)
	}
}

// TestOtherwise: a migration that was begun goes on as it was planned; what is asked
// for in another way now is a problem, and what is the same is none.
func TestOtherwise(t *testing.T) {
	s := &state{Phase: "install", Plan: &Plan{New: NewRelease{Name: "metawire", Namespace: "falco"}}, Values: map[string]any{"image": map[string]any{"tag": "1"}, "n": float64(2)}}
	for name, tc := range map[string]struct {
		phase string
		o     Options
		want  string
	}{
		"nothing":               {"install", Options{}, ""},
		"the same":              {"install", Options{ToRelease: "metawire", ToNamespace: "falco", Values: map[string]any{"image": map[string]any{"tag": "1"}, "n": int64(2)}}, ""},
		"another name":          {"install", Options{ToRelease: "other"}, "makes release falco/metawire"},
		"another namespace":     {"install", Options{ToNamespace: "other"}, "makes release falco/metawire"},
		"another value":         {"install", Options{Values: map[string]any{"n": int64(3)}}, "has other values"},
		"to keep what goes":     {phaseRemove, Options{KeepOld: true}, "comes too late"},
		"to keep what may stay": {phaseVerify, Options{KeepOld: true}, ""},
		"on the way back":       {PhaseRollBack, Options{ToRelease: "other"}, ""},
	} {
		s.Phase = tc.phase
		got := strings.Join(s.otherwise(tc.o), "\n")
		if !strings.Contains(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

// TestPassing: writing how far a migration is is tried again when the API server
// is away or busy, and not when it means what it says.
func TestPassing(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"no connection": {&url.Error{Op: "Put", URL: "https://api", Err: errors.New("connection refused")}, true},
		"too busy":      {apierrors.NewTooManyRequests("later", 1), true},
		"its storage":   {apierrors.NewInternalError(errors.New("etcd has no leader")), true},
		"a conflict":    {apierrors.NewConflict(secrets, "s", errors.New("changed")), false},
		"gone":          {apierrors.NewNotFound(secrets, "s"), false},
		"forbidden":     {apierrors.NewForbidden(secrets, "s", errors.New("no")), false},
		"interrupted":   {context.Canceled, false},
	} {
		if got := passing(tc.err); got != tc.want {
			t.Errorf("%s: got %t, want %t", name, got, tc.want)
		}
	}
}

// TestStays: what others may use outlives the release that made it.
func TestStays(t *testing.T) {
	for text, want := range map[string]bool{
		`{apiVersion: v1, kind: Namespace, metadata: {name: n}}`:                                               true,
		`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: n}}`:           true,
		`{apiVersion: v1, kind: ConfigMap, metadata: {name: n, annotations: {helm.sh/resource-policy: keep}}}`: true,
		`{apiVersion: v1, kind: ConfigMap, metadata: {name: n, annotations: {meta.helm.sh/release-name: r}}}`:  false,
		`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: n}}`:                   false,
	} {
		if got := stays(object(t, text)) != ""; got != want {
			t.Errorf("%s: got %t, want %t", text, got, want)
		}
	}
}

func TestManagedBy(t *testing.T) {
	for name, tc := range map[string]struct {
		labels, annotations map[string]string
		want                string
	}{
		"nobody":                     {nil, nil, ""},
		"Helm, and its usual labels": {map[string]string{"app.kubernetes.io/instance": "a", "app.kubernetes.io/managed-by": "Helm"}, nil, ""},
		"Argo CD, by annotation":     {nil, map[string]string{"argocd.argoproj.io/tracking-id": "falco:apps/Deployment:falco/x"}, "Argo CD (application falco)"},
		"Argo CD, by label":          {map[string]string{"argocd.argoproj.io/instance": "falco"}, nil, "Argo CD (application falco)"},
		"Flux, a HelmRelease":        {map[string]string{"helm.toolkit.fluxcd.io/name": "collector"}, nil, "Flux (HelmRelease collector)"},
		"Flux, a Kustomization":      {map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}, nil, "Flux (Kustomization apps)"},
	} {
		if got := managedBy(tc.labels, tc.annotations); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

// TestHide: what a plan shows of values has no secret in it, and the values
// themselves stay as they are.
func TestHide(t *testing.T) {
	v := map[string]any{
		"clusterID": "c", "extraObjects": []any{"s3cret"}, "collector": map[string]any{"env": []any{"s3cret"}},
		"inventory": map[string]any{
			"credentials": map[string]any{"mode": "bearer", "token": "s3cret", "accessKey": "s3cret", "secretKey": "s3cret"},
			"proxy":       map[string]any{"url": "http://me:s3cret@proxy.example:3128"},
		},
	}
	shown, err := json.Marshal(hide(v))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(shown, []byte("s3cret")) || !bytes.Contains(shown, []byte("bearer")) || !bytes.Contains(shown, []byte("proxy.example:3128")) {
		t.Errorf("got %s", shown)
	}
	if token, _, _ := unstructured.NestedString(v, "inventory", "credentials", "token"); token != "s3cret" {
		t.Error("the values were changed")
	}
}

func TestMerge(t *testing.T) {
	a := map[string]any{"image": map[string]any{"tag": "1", "repository": "r"}, "x": 1}
	got := merge(a, map[string]any{"image": map[string]any{"tag": "2"}, "x": map[string]any{"y": 1}, "z": []any{1}})
	want := map[string]any{"image": map[string]any{"tag": "2", "repository": "r"}, "x": map[string]any{"y": 1}, "z": []any{1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if tag, _, _ := unstructured.NestedString(a, "image", "tag"); tag != "1" {
		t.Error("what lies below was changed")
	}
}

// TestPortable: an object can be made anew from what was backed up; a headless
// Service stays one.
func TestPortable(t *testing.T) {
	service := `{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n, uid: u, resourceVersion: "1", creationTimestamp: "2026-01-01T00:00:00Z", generation: 2, labels: {a: b}}, spec: {clusterIP: %s, ports: [{port: 1, nodePort: 30000}]}, status: {loadBalancer: {}}}`
	got := portable(object(t, strings.Replace(service, "%s", "10.0.0.1", 1)))
	want := object(t, `{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n, labels: {a: b}}, spec: {ports: [{port: 1, nodePort: 30000}]}}`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	headless := portable(object(t, strings.Replace(service, "%s", "None", 1)))
	if address, _, _ := unstructured.NestedString(headless.Object, "spec", "clusterIP"); address != corev1.ClusterIPNone {
		t.Errorf("a headless Service has clusterIP %q", address)
	}
}

// TestPack: of Helm's records those that fit are kept, that of the deployed
// revision first and then the newest; the rest whole.
func TestPack(t *testing.T) {
	b := &backup{Objects: []*unstructured.Unstructured{object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}`)}}
	const deployed = 2 // two upgrades failed since
	for i := range 4 {
		noise := make([]byte, 300<<10) // which gzip cannot shrink
		if _, err := rand.Read(noise); err != nil {
			t.Fatal(err)
		}
		b.Records = append(b.Records, corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"version": strconv.Itoa(i + 1)}},
			Data:       map[string][]byte{"release": noise},
		})
	}
	packed, err := b.pack(deployed)
	if err != nil {
		t.Fatal(err)
	}
	s := &state{secret: &corev1.Secret{Data: map[string][]byte{backupKey: packed}}}
	got, err := s.backup()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.Objects, got.Objects); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]corev1.Secret{b.Records[deployed-1], b.Records[3]}, got.Records); diff != "" {
		t.Errorf("of 4 records, 300 KiB each, want the deployed one and the last (-want +got):\n%.500s", diff)
	}
	if len(b.Records) != 4 {
		t.Errorf("%d records are left for the file, want all 4", len(b.Records))
	}
	b.Records = []corev1.Secret{{Data: map[string][]byte{"release": make([]byte, 0)}}}
	huge := make([]byte, 1<<20)
	if _, err := rand.Read(huge); err != nil {
		t.Fatal(err)
	}
	b.Records[0].Data["release"] = huge
	if _, err := b.pack(deployed); err == nil {
		t.Error("a record that does not fit is no error")
	}
}

// TestBackupFile: only its owner may read it, and none is written over.
func TestBackupFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backup.json")
	of := OldRelease{Namespace: "n", Name: "r"}
	if _, err := (&backup{}).write(file, of); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if _, err := (&backup{}).write(file, of); err == nil || !strings.Contains(err.Error(), "--backup FILE") {
		t.Errorf("written over: %v", err)
	}
	t.Chdir(t.TempDir())
	name, err := (&backup{}).write("", of)
	if err != nil || !strings.HasPrefix(name, "metawire-backup-n-r-") {
		t.Errorf("got %q, %v", name, err)
	}
}

func TestExternalName(t *testing.T) {
	u := object(t, `{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {type: NodePort, selector: {a: b}, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, internalTrafficPolicy: Cluster, externalTrafficPolicy: Cluster, ports: [{name: broker-grpc, port: 45000, nodePort: 30000, targetPort: broker-grpc}]}}`)
	if err := externalName(u, "metawire-legacy.m.svc.cluster.local"); err != nil {
		t.Fatal(err)
	}
	want := object(t, `{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {type: ExternalName, externalName: metawire-legacy.m.svc.cluster.local, ports: [{name: broker-grpc, port: 45000, targetPort: broker-grpc}]}}`)
	if diff := cmp.Diff(want, u); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
