package inventory

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testRedactor() *Redactor { return NewRedactor(bytes.Repeat([]byte{7}, 32)) }

func parse(t testing.TB, text string) map[string]any {
	t.Helper()
	o := map[string]any{}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestRedacted: what is taken out, and what stays, by the place where it stands.
func TestRedacted(t *testing.T) {
	r := testRedactor()
	digest := r.of("").digest
	for name, c := range map[string]struct{ in, want string }{
		"Secret": {
			`{"kind":"Secret","apiVersion":"v1","data":{"a":"aGVsbG8="},"stringData":{"b":"x","c":""},"type":"Opaque"}`,
			`{"kind":"Secret","apiVersion":"v1","data":{"a":"` + digest("aGVsbG8=") + `"},"stringData":{"b":"` + digest("x") + `","c":""},"type":"Opaque"}`,
		},
		"ConfigMap": {
			`{"kind":"ConfigMap","apiVersion":"v1","data":{"password":"x","app.ini":"user = joe\npassword = hunter2\nport: 80","url":"postgres://joe:pw@db/x"},"binaryData":{"token":"AA==","logo":"AA=="}}`,
			`{"kind":"ConfigMap","apiVersion":"v1","data":{"password":"***","app.ini":"user = joe\npassword = ***\nport: 80","url":"postgres://***@db/x"},"binaryData":{"token":"***","logo":"AA=="}}`,
		},
		"metadata": {
			`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","managedFields":[1],"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","checksum/config":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","api-key":"x"},"ownerReferences":[{"uid":"u"}]}}`,
			`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","annotations":{"checksum/config":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","api-key":"***"},"ownerReferences":[{"uid":"u"}]}}`,
		},
		"containers of every kind": {
			`{"kind":"Pod","spec":{"containers":[{"name":"a","image":"a@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","env":[{"name":"A","value":"x"},{"name":"B","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}],"args":["--token=x","--password","y","-v","--url=http://a:b@c"]}],"initContainers":[{"env":[{"name":"A","value":"x"}],"command":["sh","-c","curl -H 'Authorization: Bearer abc' --api-key zzz"]}],"ephemeralContainers":[{"env":[{"name":"A","value":"x"}]}]}}`,
			`{"kind":"Pod","spec":{"containers":[{"name":"a","image":"a@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","env":[{"name":"A","value":"` + digest("x") + `"},{"name":"B","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}],"args":["--token=***","--password","***","-v","--url=http://***@c"]}],"initContainers":[{"env":[{"name":"A","value":"` + digest("x") + `"}],"command":["sh","-c","curl -H 'Authorization: ***"]}],"ephemeralContainers":[{"env":[{"name":"A","value":"` + digest("x") + `"}]}]}}`,
		},
		"template of an unknown object": {
			`{"kind":"Rollout","spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"x","a":"b"}},"spec":{"containers":[{"env":[{"name":"A","value":"x"}]}]}}}}`,
			`{"kind":"Rollout","spec":{"template":{"metadata":{"annotations":{"a":"b"}},"spec":{"containers":[{"env":[{"name":"A","value":"` + digest("x") + `"}]}]}}}}`,
		},
		"numbers stay as they are": {`{"kind":"X","spec":{"n":1.50,"big":12345678901234567890}}`, `{"kind":"X","spec":{"n":1.50,"big":12345678901234567890}}`},
	} {
		t.Run(name, func(t *testing.T) {
			o := parse(t, c.in)
			r.Object(o)
			if diff := cmp.Diff(parse(t, c.want), o); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDigest: a change can be seen; without the key nothing, and of another
// object nothing either.
func TestDigest(t *testing.T) {
	r, other := testRedactor(), NewRedactor(bytes.Repeat([]byte{8}, 32))
	again := testRedactor()
	if r.digest("a") != again.digest("a") || r.digest("a") == r.digest("b") || r.digest("a") == other.digest("a") {
		t.Error("digests do not tell values apart by the key")
	}
}

// canaries are credentials in the shapes that they have in the field.
func canaries() []string {
	return []string{
		"hunter2-Canary", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl", "AKIAIOSFODNN7CANARY1",
		"ghp_0123456789abcdefghijCANARY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYCANARYKEY",
	}
}

// FuzzRedact: a credential that is planted where credentials stand never comes
// out, whatever is around it.
func FuzzRedact(f *testing.F) {
	f.Add("name", "some text", uint8(0))
	f.Add("LOG", "a=b\nc: d", uint8(3))
	f.Fuzz(func(t *testing.T, key, around string, which uint8) {
		secret := canaries()[int(which)%len(canaries())]
		if strings.Contains(around, secret) || strings.Contains(key, secret) {
			return
		}
		named := "DB_PASSWORD"
		quoted := func(s string) string {
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		env := `"env":[{"name":` + quoted(key) + `,"value":` + quoted(around+secret) + `}]`
		pod := `{"containers":[{` + env + `,"args":["--password",` + quoted(secret) + `,"--token=` + secret + `"]}],"initContainers":[{` + env + `}],"ephemeralContainers":[{` + env + `}]}`
		for _, o := range []string{
			`{"kind":"Secret","apiVersion":"v1","data":{` + quoted(key) + `:` + quoted(secret) + `},"stringData":{"a":` + quoted(around+secret) + `}}`,
			`{"kind":"ConfigMap","apiVersion":"v1","data":{"` + named + `":` + quoted(around+secret) + `}}`,
			`{"kind":"ConfigMap","apiVersion":"v1","data":{"config":` + quoted("password: "+secret+"\n"+around) + `}}`,
			`{"kind":"Pod","apiVersion":"v1","metadata":{"annotations":{"` + named + `":` + quoted(secret) + `,"kubectl.kubernetes.io/last-applied-configuration":` + quoted(secret) + `}},"spec":` + pod + `}`,
			`{"kind":"CronJob","apiVersion":"batch/v1","spec":{"jobTemplate":{"spec":{"template":{"spec":` + pod + `}}}}}`,
			`{"kind":"ControllerRevision","apiVersion":"apps/v1","data":{"spec":{"template":{"spec":` + pod + `}}}}`,
			`{"kind":"Anything","apiVersion":"example.com/v1","spec":{"deep":{"podSpec":` + pod + `}}}`,
		} {
			object := parse(t, o)
			testRedactor().Object(object)
			var b bytes.Buffer
			out, err := encode(&b, object)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(out, []byte(secret)) {
				t.Errorf("%s comes out of %s:\n%s", secret, o, out)
			}
		}
		line := strings.ReplaceAll(around, "\n", " ") + "\n"
		for _, text := range plantedTexts() {
			if text = strings.ReplaceAll(text, "%s", secret); !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") { // JSON is by itself
				text = line + text + "\n" + around
			}
			object := parse(t, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"annotations":{"a":`+quoted(text)+`}},"data":{"a":`+quoted(text)+`}}`)
			testRedactor().Object(object)
			if out, err := json.Marshal(object); err != nil || bytes.Contains(out, []byte(secret)) {
				t.Errorf("%s comes out of %q: %s, %v", secret, text, out, err)
			}
		}
		values := testRedactor().values("", parse(t, `{"auth":{"password":`+quoted(secret)+`},"env":[{"name":"`+named+`","value":`+quoted(secret)+`}]}`))
		if b, err := json.Marshal(values); err != nil || bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s comes out of Helm's values: %s, %v", secret, b, err)
		}
	})
}

// TestCertain: what is a credential by its form is masked wherever it stands.
func TestCertain(t *testing.T) {
	key := "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
	for in, want := range map[string]string{
		"before " + key + " after":              "before *** after",
		"https://user:pass@example.com/x":       "https://***@example.com/x",
		"https://example.com:8080/a@b":          "https://example.com:8080/a@b",
		"id AKIAIOSFODNN7EXAMPLE":               "id ***",
		"registry.example.com:5000/team/app:v1": "registry.example.com:5000/team/app:v1",
	} {
		if got := certain(in); got != want {
			t.Errorf("certain(%q) = %q, want %q", in, got, want)
		}
	}
	if encoded := base64.StdEncoding.EncodeToString([]byte("not a credential, a logo")); certain(encoded) != encoded {
		t.Error("plain base64 is masked")
	}
}
