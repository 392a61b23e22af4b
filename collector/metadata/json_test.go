package metadata

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// TestJSON: the bytes are those of Go's json.Marshal of a map, which is the
// contract, for any text.
func TestJSON(t *testing.T) {
	text := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9./-]{0,20}`), rapid.String(),
		rapid.SampledFrom([]string{"", "<&>", "\"\\", "\u2028", "\u2029", "\x00\x1f\x7f", "é", "\xff\xfe", "a\xffb", "😀", "\t\n\r\b\f"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		m := Meta{
			GenerateName: text.Draw(t, "generateName"), Labels: rapid.MapOfN(text, text, 0, 20).Draw(t, "labels"),
			Name: text.Draw(t, "name"), Namespace: text.Draw(t, "namespace"), UID: text.Draw(t, "uid"),
		}
		fields := map[string]any{"name": m.Name, "uid": m.UID}
		for key, value := range map[string]string{"generateName": m.GenerateName, "namespace": m.Namespace} {
			if value != "" {
				fields[key] = value
			}
		}
		if len(m.Labels) > 0 {
			fields["labels"] = m.Labels
		}
		want, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.appendJSON(nil); string(got) != string(want) {
			t.Errorf("%q\nwant\n%q", got, want)
		}
		status := map[string]string{}
		if m.Name != "" {
			status["podIP"] = m.Name
		}
		if want, err = json.Marshal(status); err != nil {
			t.Fatal(err)
		}
		if got := (Status{PodIP: m.Name}).appendJSON(nil); string(got) != string(want) {
			t.Errorf("%q\nwant\n%q", got, want)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	m := Meta{
		GenerateName: "web-6c9b4d798-", Name: "web-6c9b4d798-mzkf5", Namespace: "shop", UID: "3f1c0f6e-5f0f-4b0f-8f52-7a8f6d1f6c11",
		Labels: map[string]string{"app": "web", "pod-template-hash": "6c9b4d798", "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop"},
	}
	s := Status{PodIP: "10.1.2.3"}
	b.ReportAllocs()
	for b.Loop() {
		Encode("Pod", m, &s)
	}
}
