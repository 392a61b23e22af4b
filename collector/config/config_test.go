package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/metawire/metawire/internal/certs"
	"github.com/metawire/metawire/internal/strict"
)

const valid = `apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: ":8081"}
metrics: {address: ":8080"}
stream:
  enabled: true
  address: ":45000"
  tls: {mode: disabled}
  authorization: disabled
`

func TestDecodeAppliesDefaults(t *testing.T) {
	got, err := Decode([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		APIVersion: APIVersion,
		Kind:       Kind,
		Health:     Listener{":8081"},
		Metrics:    Listener{":8080"},
		Stream: Stream{
			Enabled:       true,
			Address:       ":45000",
			TLS:           certs.Settings{Mode: certs.ModeDisabled},
			Pacing:        Pacing{Burst: 1000, Rate: 2000},
			MaxAge:        strict.Duration(6 * time.Hour),
			Authorization: AuthorizationDisabled,

			TrustNodeAddresses: true,
		},
		Inventory: defaultInventory(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeKeepsWhatIsSet(t *testing.T) {
	got, err := Decode([]byte(valid + "  pacing: {burst: 5, rate: 0.5}\n  maxAge: 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Pacing{Burst: 5, Rate: 0.5}, got.Stream.Pacing); diff != "" {
		t.Error(diff)
	}
	if got.Stream.MaxAge != 0 {
		t.Errorf("maxAge = %v, want 0: never", got.Stream.MaxAge)
	}
}

// TestDecodeWhatAChartRenders: every key of authorization and TLS.
func TestDecodeWhatAChartRenders(t *testing.T) {
	got, err := Decode([]byte(`apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
health: {address: ":8081"}
metrics: {address: ":8080"}
stream:
  enabled: true
  address: ":45000"
  tls:
    mode: selfManaged
    secret: {namespace: metawire, name: metawire-ca}
    dnsNames: [metawire-collector.metawire.svc]
  plaintext: {address: ":45001"}
  tickets: {secret: {namespace: metawire, name: metawire-tickets}}
  trustNodeAddresses: false
report: {unwiredPods: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	s := got.Stream
	if s.Authorization != AuthorizationEnforce || s.TrustNodeAddresses || !got.Report.UnwiredPods || s.Plaintext.Address != ":45001" ||
		s.TLS.Secret.Name != "metawire-ca" || s.Tickets.Secret.Name != "metawire-tickets" || s.Tickets.Secret.Namespace != "metawire" {
		t.Errorf("decoded %+v", got)
	}
}

// TestNamespaceSelector: which namespaces it matches.
func TestNamespaceSelector(t *testing.T) {
	for name, c := range map[string]struct {
		in     string
		labels labels.Set
		want   bool
	}{
		"none":           {"", nil, true},
		"empty":          {"{}", nil, true},
		"label":          {"{matchLabels: {team: a}}", labels.Set{"team": "a", "x": "y"}, true},
		"another label":  {"{matchLabels: {team: a}}", labels.Set{"team": "b"}, false},
		"expression":     {"{matchExpressions: [{key: team, operator: NotIn, values: [a, b]}]}", labels.Set{"team": "b"}, false},
		"without values": {"{matchExpressions: [{key: team, operator: DoesNotExist}]}", nil, true},
		"both":           {"{matchLabels: {team: a}, matchExpressions: [{key: x, operator: Exists}]}", labels.Set{"team": "a"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := Decode([]byte(valid + "report: {unwiredPods: true, namespaceSelector: " + c.in + "}\n"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := cfg.Report.NamespaceSelector.Selector()
			if err != nil || s.Matches(c.labels) != c.want {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
}

// TestDecodeRefuses holds for every mistake the words that the error must have:
// the key, the value, what is allowed.
func TestDecodeRefuses(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(valid, old) {
			t.Fatalf("%q is not in the valid configuration", old)
		}
		return strings.Replace(valid, old, new, 1)
	}
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"empty file":             {"", []string{"empty"}},
		"not YAML":               {"a: [", []string{"line 1"}},
		"two documents":          {valid + "---\n" + valid, []string{"more than one"}},
		"unknown key, with line": {valid + "  tsl: {}\n", []string{"line 10", `unknown key "tsl"`}},
		"unknown key at the top": {"colour: red\n" + valid, []string{"line 1", `unknown key "colour"`}},
		"key given twice":        {valid + "kind: CollectorConfig\n", []string{"line 10", `"kind"`, "already"}},
		"wrong type":             {replace("enabled: true", "enabled: perhaps"), []string{"line 6", "perhaps"}},
		"wrong apiVersion":       {replace("v1alpha1", "v9"), []string{"apiVersion", "metawire.dev/v9", APIVersion}},
		"wrong kind":             {replace("CollectorConfig", "Config"), []string{"kind", `"Config"`, Kind}},
		"no health address":      {replace(`health: {address: ":8081"}`, ""), []string{"health.address", "host:port"}},
		"address without port":   {replace(":8080", "localhost"), []string{"metrics.address", "localhost", "host:port"}},
		"port out of range":      {replace(":45000", ":450000"), []string{"stream.address", ":450000"}},
		"self-managed, nothing":  {replace("tls: {mode: disabled}", "tls: {mode: selfManaged}"), []string{"stream.tls", "secret.namespace", "secret.name", "stream.tls.dnsNames"}},
		"TLS left out":           {replace("  tls: {mode: disabled}\n", ""), []string{"stream.tls", "selfManaged", "secret"}},
		"unknown TLS mode":       {replace("mode: disabled", "mode: mutual"), []string{"stream.tls.mode", "mutual", "files", "disabled"}},
		"TLS files without key":  {replace("mode: disabled", "mode: files, certFile: a"), []string{"stream.tls.keyFile"}},
		"unknown authorization":  {replace("authorization: disabled", "authorization: maybe"), []string{"stream.authorization", "maybe", "enforce", "audit", "disabled"}},
		"half a ticket secret":   {valid + "  tickets: {secret: {name: t}}\n", []string{"stream.tickets.secret", "namespace"}},
		"plaintext, no TLS":      {valid + "  plaintext: {address: \":45001\"}\n", []string{"stream.plaintext.address", "stream.tls.mode"}},
		"plaintext address":      {replace("tls: {mode: disabled}", "tls: {mode: files, certFile: a, keyFile: b}") + "  plaintext: {address: x}\n", []string{"stream.plaintext.address", `"x"`, "host:port"}},
		"no burst":               {valid + "  pacing: {burst: 0}\n", []string{"stream.pacing.burst", "0", "at least 1"}},
		"negative rate":          {valid + "  pacing: {rate: -1}\n", []string{"stream.pacing.rate", "-1"}},
		"age without unit":       {valid + "  maxAge: 6\n", []string{"line 10", `"6"`, "unit", "6h"}},
		"age too short":          {valid + "  maxAge: 6s\n", []string{"stream.maxAge", "6s", "1m"}},
		"nothing enabled":        {replace("enabled: true", "enabled: false"), []string{"stream.enabled", "nothing to do"}},
		"unknown selector key":   {valid + "report: {namespaceSelector: {matchLabel: {}}}\n", []string{"line 10", `unknown key "matchLabel"`}},
		"unknown operator":       {valid + "report: {namespaceSelector: {matchExpressions: [{key: a, operator: Like}]}}\n", []string{"report.namespaceSelector", "Like", "NotIn"}},
		"In without values":      {valid + "report: {namespaceSelector: {matchExpressions: [{key: a, operator: In}]}}\n", []string{"report.namespaceSelector", "values"}},
		"no label":               {valid + "report: {namespaceSelector: {matchLabels: {a: \"b c\"}}}\n", []string{"report.namespaceSelector", "b c"}},
		"two mistakes":           {replace(":8081", "x") + "  maxAge: 1s\n", []string{"health.address", "stream.maxAge"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]byte(c.in))
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "config.") {
				t.Errorf("error shows a Go type: %v", err)
			}
		})
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "collector.yaml")
	if _, _, err := Load(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte(valid+"oops: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, data, err := Load(file)
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "oops") {
		t.Errorf("bad file: %v", err)
	}
	if string(data) != valid+"oops: 1\n" {
		t.Errorf("bytes of a bad file are lost: %q", data)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte("stream: {pacing: {rate: .nan}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil {
			return
		}
		if !c.Stream.Enabled && !c.Inventory.Enabled {
			t.Error("accepted, yet nothing to do")
		}
		if c.Stream.Enabled && (c.Stream.Pacing.Burst < 1 || !(c.Stream.Pacing.Rate > 0)) {
			t.Errorf("accepted pacing %+v", c.Stream.Pacing)
		}
	})
}
