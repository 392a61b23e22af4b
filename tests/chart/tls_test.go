package chart_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// tlsValues has a value set for each source of certificates.
var tlsValues = map[string]string{
	"selfManaged": "",
	"certManager": "tls: {source: certManager}",
	"issuer":      "tls: {source: certManager, certManager: {issuerRef: {name: corporate, kind: ClusterIssuer, group: example.com}}}",
	"provided":    "tls: {source: provided, provided: {secretName: mine}}",
}

// TestSecrets: which Secret each daemon and the test pod mount, and that those
// which the daemons fill are rendered empty.
func TestSecrets(t *testing.T) {
	want := map[string]map[string]string{
		"selfManaged": {"test": "metawire-ca"},
		"certManager": {"collector": "metawire-collector-tls", "webhook": "metawire-webhook-tls", "test": "metawire-collector-tls"},
		"issuer":      {"collector": "metawire-collector-tls", "webhook": "metawire-webhook-tls", "test": "metawire-collector-tls"},
		"provided":    {"collector": "mine", "webhook": "mine", "test": "mine"},
	}
	for name, values := range tlsValues {
		_, objs := mustRender(t, loadChart(t), values)
		got := map[string]string{}
		for _, component := range []string{"collector", "webhook"} {
			d, err := find[appsv1.Deployment](objs, "Deployment", "metawire-"+component)
			if err != nil {
				t.Fatal(err)
			}
			addSecrets(got, component, d.Spec.Template.Spec)
		}
		test, err := find[corev1.Pod](objs, "Pod", "metawire-test-stream")
		if err != nil {
			t.Fatal(err)
		}
		addSecrets(got, "test", test.Spec)
		if d := cmp.Diff(want[name], got); d != "" {
			t.Errorf("%s: Secrets that are mounted (-want +got):\n%s", name, d)
		}
		if items := test.Spec.Volumes[0].Secret.Items; len(items) != 1 || items[0].Key != "ca.crt" {
			t.Errorf("%s: the test pod sees more than the authority's certificate: %v", name, items)
		}
		if p := test.Spec.Volumes[1].Projected.Sources[0].ServiceAccountToken; p == nil || p.Audience != "metawire.dev" {
			t.Errorf("%s: the test pod has no token for metawire.dev", name)
		}
		for _, o := range objs {
			if o.GetKind() == "Secret" && (o.Object["data"] != nil || o.Object["stringData"] != nil) {
				t.Errorf("%s: Secret %s is rendered with data", name, o.GetName())
			}
		}
	}
}

func addSecrets(to map[string]string, of string, spec corev1.PodSpec) {
	for _, v := range spec.Volumes {
		if v.Secret != nil {
			to[of] = v.Secret.SecretName
		}
	}
}

// TestCertificates: what cert-manager is asked for, by whom it is signed, and
// who keeps the caBundle.
func TestCertificates(t *testing.T) {
	own := "metawire-authority Issuer cert-manager.io"
	corporate := "corporate ClusterIssuer example.com"
	names := func(component string) []any {
		name := "metawire-" + component
		return []any{name, name + ".metawire", name + ".metawire.svc"}
	}
	want := map[string]map[string][]any{
		"selfManaged": {},
		"provided":    {},
		"certManager": {
			"metawire-authority": {"metawire-authority", "metawire-selfsigned Issuer cert-manager.io"},
			"metawire-collector": append([]any{"metawire-collector-tls", own}, names("collector")...),
			"metawire-webhook":   append([]any{"metawire-webhook-tls", own}, names("webhook")...),
		},
		"issuer": {
			"metawire-collector": append([]any{"metawire-collector-tls", corporate}, names("collector")...),
			"metawire-webhook":   append([]any{"metawire-webhook-tls", corporate}, names("webhook")...),
		},
	}
	for name, values := range tlsValues {
		_, objs := mustRender(t, loadChart(t), values)
		got := map[string][]any{}
		for _, o := range objs {
			if o.GetKind() != "Certificate" {
				continue
			}
			text := func(fields ...string) string {
				s, _, err := unstructured.NestedString(o.Object, append([]string{"spec"}, fields...)...)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			issuer := text("issuerRef", "name") + " " + text("issuerRef", "kind") + " " + text("issuerRef", "group")
			dnsNames, _, err := unstructured.NestedSlice(o.Object, "spec", "dnsNames")
			if err != nil {
				t.Fatal(err)
			}
			got[o.GetName()] = slices.Concat([]any{text("secretName"), issuer}, dnsNames)
		}
		if d := cmp.Diff(want[name], got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		from := webhookConfiguration(t, values).Annotations["cert-manager.io/inject-ca-from"]
		if len(got) > 0 && from != namespace+"/metawire-webhook" || len(got) == 0 && from != "" {
			t.Errorf("%s: the caBundle is taken from %q", name, from)
		}
	}
}
