package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/charts"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/collector/inventory/receiver"
)

// secret is what must never arrive: shaped as a token is, and whole nowhere in
// this file.
var secret = "ghp_" + strings.Repeat("c4Nary9Z", 4) + "0123"

// inventoryToken is the endpoint's.
const inventoryToken = "token-of-the-endpoint"

// testInventory: an upgrade switches the inventory on; a run that is asked for
// is complete, says so, and brings everything but credentials.
func testInventory(t *testing.T, w *world) {
	w.plantSecrets(t)
	endpoint := receiver.New(receiver.Options{Token: inventoryToken})
	values := w.values(map[string]any{
		"clusterID": "e2e", "addTypes": []any{"secrets"}, "removeTypes": []any{"volumeattachments"},
		"inventory": map[string]any{
			"enabled": true, "endpoint": w.serve(t, endpoint) + "/ingest", "insecure": true, "schedule": "0 0 1 1 *", "changes": true,
			"credentials": map[string]any{"mode": "bearer", "token": inventoryToken},
		},
	})
	if _, err := w.helm.Upgrade(t.Context(), values, started); err != nil {
		t.Fatal(err)
	}
	w.helmTestSays(t, "took a page without objects", "no run of the inventory has ended yet")
	report := w.inventoryRun(t, "first")
	kept := endpoint.Kept()
	if report.Result != inventory.Complete || !kept.Runs[report.Run].Closed || kept.Refused != 0 {
		t.Fatalf("want a complete run, got %s: %+v", inventory.Summary(report), kept.Runs)
	}
	w.checkArrived(t, report, kept)
	w.checkSecrets(t, kept)
	w.checkReadable(t, report)
	if out, code := w.metawire(t, "inventory", "types"); code != 0 || !strings.Contains(out, "\nsecrets ") || strings.Contains(out, "\nvolumeattachments") {
		t.Errorf("metawire inventory types does not tell of the release; it ended with %d:\n%s", code, out)
	}

	if out, code := w.metawire(t, "check"); code != 0 || !strings.Contains(out, "ago: complete") {
		t.Errorf("metawire check does not tell of the run; it ended with %d:\n%s", code, out)
	}
	w.helmTestSays(t, fmt.Sprintf(" objects of %d types, %d of them sent\n", len(report.Types), report.Sent.Objects))
	gone, err := w.api.CoreV1().Secrets(shop).Get(t.Context(), "planted", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.api.CoreV1().Secrets(shop).Delete(t.Context(), gone.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	second := w.inventoryRun(t, "second")
	if !second.Changes || second.Sent.Objects >= report.Sent.Objects/2 {
		t.Errorf("want what has changed only, got %s", inventory.Summary(second))
	}
	if _, told := endpoint.Kept().Deleted[string(gone.UID)]; !told {
		t.Error("the endpoint is not told of a Secret that is gone")
	}
}

// testInventoryJob: a run is a pod of its own, whose account alone may read the
// types; the collectors have what the stream needs. It is asked for as any other.
func testInventoryJob(t *testing.T, w *world) {
	endpoint := receiver.New(receiver.Options{})
	values := w.values(map[string]any{
		"clusterID": "e2e",
		"inventory": map[string]any{
			"enabled": true, "mode": "CronJob", "contract": "runs", "endpoint": w.serve(t, endpoint), "insecure": true, "schedule": "0 0 1 1 *",
		},
	})
	if _, err := w.helm.Upgrade(t.Context(), values, started); err != nil {
		t.Fatal(err)
	}
	if out, code := w.metawire(t, "inventory", "types"); code != 0 || !strings.Contains(out, "\nconfigmaps ") {
		t.Errorf("metawire inventory types does not tell of the CronJob; it ended with %d:\n%s", code, out)
	}
	// The collectors may not touch the Lease any more, and so not give it back: the
	// first run waits until it has run out.
	ctx, cancel := context.WithTimeout(t.Context(), started)
	defer cancel()
	if out, code := w.command(ctx, t, "", "inventory", "trigger"); code != 0 || !strings.Contains(out, "\ncomplete: ") {
		t.Fatalf("metawire inventory trigger ended with %d:\n%s", code, out)
	}
	w.helmTestSays(t, "takes the credentials", "ago: complete")
	kept := endpoint.Kept()
	if len(kept.Runs) != 1 || kept.Refused != 0 || len(kept.Objects) == 0 {
		t.Errorf("want one run, got %+v, %d refused", kept.Runs, kept.Refused)
	}
	for id, r := range kept.Runs {
		if !r.Closed || r.Result != "success" {
			t.Errorf("run %s was not closed: %+v", id, r)
		}
	}
	if got := w.readable(t, collector); got["list configmaps"] || !got["watch pods"] {
		t.Errorf("the collectors may read what they do not need: %v", got)
	}
}

// serve serves the endpoint where pods reach it, and returns its URL.
func (w *world) serve(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(w.cluster.HostIP(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: soon}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// plantSecrets puts the secret wherever people put such.
func (w *world) plantSecrets(t *testing.T) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "planted", Namespace: shop, Annotations: map[string]string{
		"example.com/api-token": secret, corev1.LastAppliedConfigAnnotation: `{"data":{"password":"` + secret + `"}}`,
	}}
	if _, err := w.api.CoreV1().Secrets(shop).Create(t.Context(), &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"password": secret}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.CoreV1().ConfigMaps(shop).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: meta, Data: map[string]string{"password": secret, "app.properties": "user=a\npassword=" + secret + "\n"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	container := fmt.Sprintf(`"env": [{"name": "PASSWORD", "value": %q}], "args": ["--password=%s"]`, secret, secret)
	w.patchDeployment(t, shop, web, fmt.Sprintf(`{"spec": {"template": {
		"metadata": {"annotations": {"example.com/api-token": %q}},
		"spec": {"containers": [{"name": "pause", %s}]}}}}`, secret, container))
}

// inventoryRun asks for a run, and returns its report.
func (w *world) inventoryRun(t *testing.T, id string) *inventory.Report {
	t.Helper()
	state := inventory.State{API: w.api, Namespace: namespace, Lease: "metawire-inventory", Report: "metawire-inventory-report"}
	if err := state.Ask(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	var status inventory.Status
	took := eventually(t, 2*started, func(ctx context.Context) (err error) {
		if status, err = state.Status(ctx); err == nil && status.Trigger != id {
			err = fmt.Errorf("the run that was asked for has not ended: %+v", status.Progress)
		}
		return err
	})
	t.Logf("after %.1f s: %s", took.Seconds(), inventory.Summary(status.Report))
	eventually(t, soon, func(ctx context.Context) error {
		events, err := w.api.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		told := func(e corev1.Event) bool { return e.Message == inventory.Summary(status.Report) }
		if err == nil && !slices.ContainsFunc(events.Items, told) {
			err = fmt.Errorf("no Event tells of run %s", status.Report.Run)
		}
		return err
	})
	return status.Report
}

// checkArrived: every configured type, and every object of those that hold still.
func (w *world) checkArrived(t *testing.T, report *inventory.Report, kept receiver.Kept) {
	t.Helper()
	kinds := map[string]int{}
	for _, raw := range kept.Objects {
		var o metav1.TypeMeta
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		kinds[o.Kind]++
	}
	for _, rt := range report.Types {
		// Argo's are the only ones that no plain cluster serves.
		absent := rt.Outcome == inventory.Absent && strings.HasSuffix(rt.Name, ".argoproj.io")
		if rt.Outcome != inventory.OK && !absent {
			t.Errorf("%s is %s: %s", rt.Name, rt.Outcome, rt.Error)
		}
		if rt.Listed > 0 && kinds[rt.Kind] == 0 {
			t.Errorf("%s: %d objects were listed, and none of kind %s has arrived", rt.Name, rt.Listed, rt.Kind)
		}
	}
	var there []metav1.Object
	deployments, err := w.api.AppsV1().Deployments("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range deployments.Items {
		there = append(there, &deployments.Items[i])
	}
	secrets, err := w.api.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range secrets.Items {
		there = append(there, &secrets.Items[i])
	}
	for _, o := range there {
		if kept.Objects[string(o.GetUID())] == nil {
			t.Errorf("%s/%s has not arrived", o.GetNamespace(), o.GetName())
		}
	}
}

// checkSecrets: what was planted is in nothing that was sent, logged or kept.
func (w *world) checkSecrets(t *testing.T, kept receiver.Kept) {
	t.Helper()
	for uid, raw := range kept.Objects {
		for _, forbidden := range []string{secret, "managedFields", corev1.LastAppliedConfigAnnotation, inventoryToken} {
			if strings.Contains(string(raw), forbidden) {
				t.Errorf("object %s has arrived with %s:\n%s", uid, forbidden, raw)
			}
		}
	}
	told := ""
	for _, p := range w.mustCollectors(t) {
		log, err := w.log(t.Context(), p, false)
		if err != nil {
			t.Fatal(err)
		}
		told += log
	}
	maps, err := w.api.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		told += fmt.Sprint(m.Data)
	}
	for _, forbidden := range []string{secret, inventoryToken} {
		if strings.Contains(told, forbidden) {
			t.Errorf("%s is in a log or a ConfigMap", forbidden)
		}
	}
}

// checkReadable: of all that the API server serves, the collectors' token reads
// the configured types and nothing else.
func (w *world) checkReadable(t *testing.T, report *inventory.Report) {
	t.Helper()
	types, err := charts.ResourceTypes()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{} // "verb type"
	for _, rt := range report.Types {
		want["list "+rt.Name] = rt.Outcome == inventory.OK
	}
	for _, rt := range types {
		if rt.Streamed {
			want["list "+rt.Name()], want["watch "+rt.Name()] = true, true
		}
	}
	for name, served := range want {
		if !served {
			delete(want, name)
		}
	}
	if d := cmp.Diff(want, w.readable(t, collector)); d != "" {
		t.Errorf("what the collectors may read (-configured +allowed):\n%s", d)
	}
}

// readable is what an account's token may read of all that the API server
// serves, anywhere: "verb type".
func (w *world) readable(t *testing.T, account string) map[string]bool {
	t.Helper()
	token, err := w.api.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own := rest.AnonymousClientConfig(w.config)
	own.BearerToken, own.QPS = token.Status.Token, -1
	api, err := kubernetes.NewForConfig(own)
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := w.api.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	got, all := map[string]bool{}, map[string]bool{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			resource, sub, _ := strings.Cut(r.Name, "/")
			for _, verb := range []string{"get", "list", "watch"} {
				name := verb + " " + charts.ResourceType{Group: gv.Group, Resource: r.Name}.Name()
				if all[name] {
					continue
				}
				all[name] = true
				review, err := api.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
					Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
						Verb: verb, Group: gv.Group, Version: gv.Version, Resource: resource, Subresource: sub,
					}},
				}, metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if review.Status.Allowed {
					got[name] = true
				}
			}
		}
	}
	return got
}
