package check

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// TestWanted: the roles in docs/operate.md give whoever checks what is wanted of
// them, and nothing else.
func TestWanted(t *testing.T) {
	text, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	var documents [][]byte
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		documents = append(documents, bytes.Split(block[1], []byte("\n---\n"))...)
	}
	var got, want []string
	for _, role := range decoded[rbacv1.Role](t, documents, "Role", "ClusterRole") {
		for _, r := range flat(role.Namespace, role.Rules) {
			got = append(got, r.String())
		}
	}
	for _, r := range wanted("metawire") {
		want = append(want, r.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-wanted +in docs/operate.md:\n%s", d)
	}
}
