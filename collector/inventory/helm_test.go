package inventory

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// releaseSecret is a Secret as Helm writes it.
func releaseSecret(t *testing.T, uid, release string) string {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(release)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data := base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString(packed.Bytes())))
	return fmt.Sprintf(`{"metadata":{"uid":%q,"namespace":"n","name":"sh.helm.release.v1.%s"},"type":"helm.sh/release.v1","data":{"release":%q}}`, uid, uid, data)
}

// TestReleases: what is told of a release, without credentials; one that cannot
// be decoded is named, and what is no release is not looked at.
func TestReleases(t *testing.T) {
	const release = `{"name":"shop","namespace":"n","version":3,"info":{"status":"deployed","last_deployed":"2026-01-01T00:00:00Z","notes":"canary"},` +
		`"chart":{"metadata":{"name":"web","version":"1.2.3","appVersion":"4"},"values":{"password":"canary"},"templates":[{"data":"canary"}]},` +
		`"config":{"replicas":2,"db":{"password":"canary"},"env":{"A":"canary"}},"manifest":"canary"}`
	l := script(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("labelSelector"); got != helmLabel {
			t.Errorf("selector %q", got)
		}
		_, _ = fmt.Fprintf(w, `{"metadata":{},"items":[%s,%s,{"metadata":{"uid":"c"},"type":"Opaque"}]}`,
			releaseSecret(t, "a", release), `{"metadata":{"uid":"b","namespace":"n","name":"bad"},"type":"helm.sh/release.v1","data":{"release":"canary"}}`)
	})
	var got []*HelmRelease
	var broken []string
	err := l.releases(t.Context(), testRedactor(), func(_ Identity, release *HelmRelease, err error) error {
		if err != nil {
			broken = append(broken, err.Error())
			return nil
		}
		got = append(got, release)
		return nil
	})
	if err != nil || len(got) != 1 || len(broken) != 1 || !strings.Contains(broken[0], "n/bad") {
		t.Fatalf("%d releases, broken %v, error %v", len(got), broken, err)
	}
	if out, err := json.Marshal(got); err != nil || strings.Contains(string(out)+broken[0], "canary") {
		t.Errorf("a credential is in %s or %s, %v", out, broken[0], err)
	}
	values, _ := got[0].Values.(map[string]any)
	if values["replicas"] != json.Number("2") {
		t.Errorf("values %v", values)
	}
	got[0].Values = nil
	want := &HelmRelease{Name: "shop", Namespace: "n", Revision: 3, Status: "deployed", Chart: "web", ChartVersion: "1.2.3", AppVersion: "4", Updated: "2026-01-01T00:00:00Z"}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
}
