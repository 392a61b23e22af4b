package migrate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// object decodes an object literal.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPermissions(t *testing.T) {
	everything := `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: all}, rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch]}]}`
	narrow := `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: some}, rules: [{apiGroups: [""], resources: [pods, services], verbs: [list]}, {apiGroups: [apps], resources: [deployments], verbs: [list]}]}`
	own := `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: own, namespace: ns}, rules: [{apiGroups: [""], resources: [secrets], resourceNames: [key], verbs: [get, update]}]}`
	whole := `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: whole, namespace: ns}, rules: [{apiGroups: [""], resources: [secrets], verbs: [list]}]}`
	writes := `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: writes}, rules: [{apiGroups: [""], resources: [secrets], verbs: [create]}]}`
	urls := `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: urls}, rules: [{nonResourceURLs: [/metrics], verbs: [get]}]}`
	anyGroup := `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: bare}, rules: [{apiGroups: ["*"], resources: [widgets], verbs: [list]}]}`
	for name, tc := range map[string]struct {
		had, will string
		want      []string
	}{
		"everything becomes some": {everything, narrow, []string{
			"before, ClusterRole all: get, list, watch everything there is, the contents of Secrets too",
			"after, ClusterRole some: list pods, services",
			"after, ClusterRole some: list deployments.apps",
			"Secrets, before: all can be read, in every namespace", "Secrets, after: none can be read",
		}},
		"one Secret": {narrow, own, []string{
			"before, ClusterRole some: list pods, services",
			"before, ClusterRole some: list deployments.apps",
			"after, Role ns/own: get, update secrets named key",
			"Secrets, before: none can be read", "Secrets, after: only these can be read: key",
		}},
		"a namespace": {urls, whole, []string{
			"before, ClusterRole urls: get /metrics",
			"after, Role ns/whole: list secrets",
			"Secrets, before: none can be read", "Secrets, after: only these can be read: all of namespace ns",
		}},
		"writing is not reading": {writes, anyGroup, []string{
			"before, ClusterRole writes: create secrets",
			"after, ClusterRole bare: list widgets of every group",
			"Secrets, before and after: none can be read",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := permissions([]*unstructured.Unstructured{object(t, tc.had)}, []*unstructured.Unstructured{object(t, tc.will)})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
