package inventory

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// plantedTexts are texts with a credential, %s, as people write them.
func plantedTexts() []string {
	return []string{
		"password: %s", "password = %s", "export DB_PASS=%s", "spring.datasource.password=%s", "PGPASSWORD=%s psql", "DATABASE_DSN=u:%s@h",
		`password: "%s"`, `password: '%s'`, `password='%s' user=x`, "password: |\n  %s\nuser: x", "password: >-\n  a\n\n  %s", "- password: |\n    a\n    %s",
		"passwords:\n  - a\n  - %s", "passwords:\n- %s", "secret=a\\\n  %s", "password: \"a\n  %s\"", "password: 'it''s%s'", `password: "a\"%s"`,
		"password: a,%s", "password: a;%s", "password: a %s", `password = a"%s`, "password: a b=%s",
		"env:\n  - name: DB_PASSWORD\n    value: %s", `{"name": "API_TOKEN", "value": "%s"}`, `<add key="password" value="%s"/>`, "<password>%s</password>",
		`{"a":1,"nested":{"apiKey":"%s"}}`, `{"kind":"Secret","apiVersion":"v1","data":{"x":"%s"}}`, `[{"env":[{"name":"X","value":"%s"}]}]`,
		`{"spec":"{\"password\":\"%s\"}"}`, "mysql -h x --password %s", "curl -u admin:%s https://x", "Authorization: Bearer %s", "machine x login y password %s",
		"CREATE USER x IDENTIFIED BY '%s'", "postgres://u:%s@h/db", "redis://:%s@h", "amqp://u:a/%s@h", "https://x/?access_token=%s&b=c", "https://hooks.slack.com/services/%s",
		"Server=h;Password=%s;Database=d", "AccountKey=%s;EndpointSuffix=x", "-----BEGIN EC PRIVATE KEY-----\n%s\n-----END EC PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n%s",
	}
}

// TestTextsHideCredentials: whatever the text is like, and however odd the
// credential, in a ConfigMap and in an annotation.
func TestTextsHideCredentials(t *testing.T) {
	for _, form := range plantedTexts() {
		for _, secret := range []string{"hunter2-canary", "p@ss-canary", "c4n4ry,;:canary", "-canary"} {
			quoted, err := json.Marshal(strings.ReplaceAll(form, "%s", secret))
			if err != nil {
				t.Fatal(err)
			}
			o := parse(t, fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"annotations":{"a":%s}},"data":{"a":%s},"binaryData":{"a":%q}}`,
				quoted, quoted, base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(form, "%s", secret)))))
			testRedactor().Object(o)
			for place, got := range map[string]string{"annotation": text(o, "metadata", "annotations", "a"), "data": text(o, "data", "a"), "binaryData": text(o, "binaryData", "a")} {
				plain, _ := base64.StdEncoding.DecodeString(got)
				if strings.Contains(got, "canary") || strings.Contains(string(plain), "canary") {
					t.Errorf("%s: %q with %q becomes %q", place, form, secret, got)
				}
			}
		}
	}
}

// TestTextsStay: what only tells of credentials, or is public, is sent as it is.
func TestTextsStay(t *testing.T) {
	for _, s := range []string{
		"port: 80\nhost: example.com", `{"b": 1, "a": {"secretName": "x"}}`, "--tls-private-key-file=/etc/x.pem", "auth-type: basic", "secretName: db",
		"-----BEGIN CERTIFICATE-----\nMIIDBTCCAe2gAwIBAgIIUq8XQvxc7aEwDQYJKoZIhvcNAQELBQAwFTETMBEGA1UE\n-----END CERTIFICATE-----\n",
		"image@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "https://example.com:8080/a@b", "0b6a7f6e-1c2d-4e5f-8a9b-0c1d2e3f4a5b",
		"rules:\n- resources: [secrets]\n  verbs: [get]", "level=info msg=ready", "10.0.0.1:8080,10.0.0.2:8080", "sudo -u nobody run", "hmac-sha256:0011223344556677",
	} {
		if got := testRedactor().text("config", s); got != s {
			t.Errorf("%q becomes %q", s, got)
		}
	}
}

// TestOddShapes: objects that are not as their kind says do not get credentials
// through.
func TestOddShapes(t *testing.T) {
	for _, o := range []string{
		`{"kind":"Secret","apiVersion":"v1","data":["canary",{"a":"canary"}]}`,
		`{"kind":"Secret","apiVersion":"v1","stringData":"canary"}`,
		`{"kind":"Template","apiVersion":"example.com/v1","objects":[{"kind":"Secret","apiVersion":"v1","stringData":{"a":"canary"}}]}`,
		`{"kind":"X","spec":{"env":{"A":"canary","B":{"value":"canary"}}}}`,
		`{"kind":"X","spec":{"extraEnv":[{"name":"A","value":"hmac-sha256:canary"},"B=canary"]}}`,
		`{"kind":"X","spec":{"env":[{"name":"A","value":{"a":["canary"]}}]}}`,
		`{"kind":"X","spec":{"parameters":[{"name":"db.password","value":"canary"}]}}`,
		`{"kind":"X","spec":{"command":"run --password=canary"}}`,
		`{"kind":"Pod","spec":{"containers":[{"livenessProbe":{"exec":{"command":["x","--token","canary"]},"httpGet":{"httpHeaders":[{"name":"Authorization","value":"canary"}]}}}]}}`,
		`{"kind":"Pod","spec":{"containers":[{"command":["curl","-u","a:canary"],"args":["--password","-canary-x"]}]}}`,
		`{"kind":"X","metadata":{"annotations":{"example.com/original":"{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"data\":{\"a\":\"canary\"}}"}}}`,
		`{"kind":"X","metadata":{"annotations":{"example.com/twice":"{\"password\":\"canary\",\"password\":null}"}}}`,
	} {
		object := parse(t, o)
		testRedactor().Object(object)
		if out, err := json.Marshal(object); err != nil || strings.Contains(string(out), "canary") {
			t.Errorf("%s becomes %s, %v", o, out, err)
		}
	}
	schema := `{"kind":"CustomResourceDefinition","spec":{"schema":{"openAPIV3Schema":{"properties":{"env":{"type":"object","description":"d"}}}}}}`
	object := parse(t, schema)
	testRedactor().Object(object)
	if out, err := json.Marshal(object); err != nil || strings.Contains(string(out), "hmac") {
		t.Errorf("a schema becomes %s, %v", out, err)
	}
}

// TestValues: Helm's values are hidden by their keys, their form and where they
// stand.
func TestValues(t *testing.T) {
	in := `{"auth":{"rootPassword":"canary","database":"shop"},"secrets":{"alice":"canary","name":"stays"},"env":{"A":"canary"},"extraEnv":[{"name":"A","value":"canary"}],` +
		`"args":["--token","canary"],"config":"password: canary","list":[{"name":"TOKEN","value":"canary"}],"pinToken":1234,"replicas":2}`
	out, err := json.Marshal(testRedactor().values("", parse(t, in)))
	if err != nil || strings.Contains(string(out), "canary") || strings.Contains(string(out), "1234") {
		t.Errorf("%s, %v", out, err)
	}
	for _, kept := range []string{`"database":"shop"`, `"name":"stays"`, `"replicas":2`} {
		if !strings.Contains(string(out), kept) {
			t.Errorf("%s is not in %s", kept, out)
		}
	}
}
