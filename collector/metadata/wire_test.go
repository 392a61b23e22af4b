package metadata

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"
)

// TestBytes pins the bytes of the contract; the generated code only checks that
// our numbers agree with our .proto.
func TestBytes(t *testing.T) {
	pod := Meta{Name: "p", Namespace: "n", UID: "u", GenerateName: "g-", Labels: map[string]string{"b": "<2>", "a": "1"}}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"delete": {EncodeDeleted("Pod", "u"), "\x0a\x06Delete\x12\x01u\x1a\x03Pod"},
		"namespace, no labels": {
			Encode("Namespace", Meta{Name: "n", UID: "u"}, nil),
			"\x0a\x06Create\x12\x01u\x1a\x09Namespace\x22\x16" + `{"name":"n","uid":"u"}`},
		"pod": {
			Encode("Pod", pod, &Status{PodIP: "10.1.2.3"}),
			"\x0a\x06Create\x12\x01u\x1a\x03Pod\x22\x61" + `{"generateName":"g-","labels":{"a":"1","b":"\u003c2\u003e"},"name":"p","namespace":"n","uid":"u"}` +
				"\x32\x14" + `{"podIP":"10.1.2.3"}`},
		"pod without address": {
			Encode("Pod", Meta{Name: "p", UID: "u"}, &Status{}),
			"\x0a\x06Create\x12\x01u\x1a\x03Pod\x22\x16" + `{"name":"p","uid":"u"}` + "\x32\x02{}"},
		"no references": {AppendRefs([]byte("x"), nil), "x\x3a\x0d\x0a\x0b\x0a\x07Service\x12\x00"},
		"references": {
			AppendRefs(nil, []Ref{{"Service", "2"}, {"Namespace", "n"}, {"Service", "1"}, {"Service", "1"}}),
			"\x3a\x25" + "\x0a\x10\x0a\x09Namespace\x12\x03\x0a\x01n" + "\x0a\x11\x0a\x07Service\x12\x06\x0a\x011\x0a\x012"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, string(c.got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAgreesWithGeneratedCode decodes what the encoders made with the generated
// code, for any input.
func TestAgreesWithGeneratedCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune(`abz"<&-./é`)), 0, 200, -1)
		m := Meta{
			Name: text.Draw(t, "name"), Namespace: text.Draw(t, "namespace"), UID: text.Draw(t, "uid"),
			GenerateName: text.Draw(t, "generateName"), Labels: rapid.MapOfN(text, text, 0, 5).Draw(t, "labels"),
		}
		kind := text.Draw(t, "kind")
		ref := rapid.Custom(func(t *rapid.T) Ref {
			return Ref{rapid.SampledFrom([]string{"Service", "Namespace", "ReplicaSet", "x"}).Draw(t, "kind"), text.Draw(t, "uid")}
		})
		refs := rapid.SliceOfN(ref, 0, 8).Draw(t, "refs")
		reason := rapid.SampledFrom([]string{Create, Update}).Draw(t, "reason")

		want := &Event{Reason: reason, Uid: m.UID, Kind: kind, Meta: proto.String(mapJSON(t, m)), Status: proto.String(`{}`),
			Refs: &References{Resources: map[string]*ListOfStrings{"Service": {}}}}
		for _, r := range refs {
			l := want.Refs.Resources[r.Kind]
			if l == nil {
				l = &ListOfStrings{}
				want.Refs.Resources[r.Kind] = l
			}
			if !slices.Contains(l.List, r.UID) {
				l.List = append(l.List, r.UID)
			}
		}
		for _, l := range want.Refs.Resources {
			slices.Sort(l.List)
		}
		wire := AppendRefs(Encode(kind, m, &Status{}), refs)
		if reason == Update {
			head, rest := AsUpdate(wire)
			wire = slices.Concat(head, rest)
		}
		got := &Event{}
		if err := proto.Unmarshal(wire, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}

// mapJSON is the contract's own words: json.Marshal of a map.
func mapJSON(t *rapid.T, m Meta) string {
	v := map[string]any{"name": m.Name, "uid": m.UID}
	if m.GenerateName != "" {
		v["generateName"] = m.GenerateName
	}
	if len(m.Labels) > 0 {
		v["labels"] = m.Labels
	}
	if m.Namespace != "" {
		v["namespace"] = m.Namespace
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
