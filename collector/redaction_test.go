package collector

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/metawire/metawire/collector/config"
	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/certs"
)

var redactionSecret = config.Redaction{Mode: "on", Secret: certs.SecretRef{Namespace: "metawire", Name: "redaction"}}

func secretWith(key []byte) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "metawire", Name: "redaction"}}
	if key != nil {
		s.Data = map[string][]byte{"key": key}
	}
	return s
}

// TestRedactionKeyIsShared: who comes first fills the Secret, and whoever comes
// later has the same key.
func TestRedactionKeyIsShared(t *testing.T) {
	api := fake.NewClientset(secretWith(nil))
	first, err := redactionKey(t.Context(), api, redactionSecret)
	if err != nil || len(first) != 32 {
		t.Fatalf("got %d bytes, %v", len(first), err)
	}
	second, err := redactionKey(t.Context(), api, redactionSecret)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("another process has another key: %v", err)
	}
}

// TestRedactionKeyOfAFasterProcess: two that fill it at once have one key.
func TestRedactionKeyOfAFasterProcess(t *testing.T) {
	api := fake.NewClientset(secretWith(nil))
	theirs := bytes.Repeat([]byte("k"), 32)
	api.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		if err := api.Tracker().Update(corev1.SchemeGroupVersion.WithResource("secrets"), secretWith(theirs), "metawire"); err != nil {
			return true, nil, err
		}
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, "redaction", nil)
	})
	if key, err := redactionKey(t.Context(), api, redactionSecret); err != nil || !bytes.Equal(key, theirs) {
		t.Errorf("got %q, %v", key, err)
	}
}

// TestRedactionKeyRefuses: nothing is sent with a key that is none, and the
// error names the field.
func TestRedactionKeyRefuses(t *testing.T) {
	short := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(short, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		secret *corev1.Secret
		from   config.Redaction
		want   string
	}{
		"no Secret":    {secretWith(nil), config.Redaction{Secret: certs.SecretRef{Namespace: "metawire", Name: "x"}}, "inventory.redaction.secret: metawire/x: "},
		"short key":    {secretWith([]byte("short")), redactionSecret, "inventory.redaction.secret: metawire/redaction: the key is too short"},
		"short file":   {secretWith(nil), config.Redaction{KeyFile: short}, "inventory.redaction.keyFile: the key is too short"},
		"missing file": {secretWith(nil), config.Redaction{KeyFile: short + "x"}, "inventory.redaction.keyFile: "},
	} {
		_, err := redactionKey(t.Context(), fake.NewClientset(c.secret), c.from)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
}

// TestRunThatCannotBegin: it counts as one that failed, as its report says, and
// not as none.
func TestRunThatCannotBegin(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := &shipper{cfg: &config.Config{Inventory: config.Inventory{Redaction: redactionSecret}}, client: fake.NewClientset(), metrics: inventory.NewMetrics(registry)}
	if r := s.run(t.Context(), nil); r.Result != inventory.NotSent || !strings.Contains(r.Error, "inventory.redaction.secret") {
		t.Errorf("the report is %+v", r)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "metawire_inventory_runs_total" && m.GetLabel()[0].GetValue() == string(inventory.NotSent) && m.GetCounter().GetValue() == 1 {
				return
			}
		}
	}
	t.Errorf("no run that failed is counted: %v", families)
}
