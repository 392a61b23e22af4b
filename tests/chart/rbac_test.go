package chart_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
)

// A grant is "kind/name of the role -> service accounts: group/resource name verbs".
type grants map[string][]string

// wantGrants is what the daemons may do beside reading the configured types.
// Whatever is not here is not granted.
func wantGrants(s settings) grants {
	want := wantSenderGrants(s)
	if !s.stream {
		return want
	}
	const (
		collector = " -> metawire/metawire-collector"
		webhook   = " -> metawire/metawire-webhook"
	)
	var secrets []string
	if s.tls == "selfManaged" {
		secrets = append(secrets, "metawire-ca")
	}
	secrets = append(secrets, "metawire-tickets")
	want["Role metawire-collector"+collector] = []string{"/secrets " + strings.Join(secrets, ",") + " list,watch,update"}
	// Tickets are given, and so tokens reviewed, whether or not any is asked for;
	// and who subscribes is never told to everybody.
	want["ClusterRole metawire-collector-reviews"+collector] = []string{
		"authentication.k8s.io/tokenreviews create", "authorization.k8s.io/subjectaccessreviews create",
	}
	want["ClusterRole metawire-viewer -> metawire/metawire-viewer"] = []string{"metawire.dev/nodes/stream get,list"}
	if !s.webhook {
		return want
	}
	want["ClusterRole metawire-collector-events"+collector] = []string{"/events create"}
	own := []string{"/services metawire-collector list,watch"}
	if s.tls == "selfManaged" {
		own = append(own, "/secrets metawire-ca list,watch,update")
	}
	want["Role metawire-webhook"+webhook] = own
	if len(s.namespaces) == 0 { // else the test of the webhook is left out
		want["Role metawire-test-webhook -> metawire/metawire-test-webhook"] = []string{"/pods create"} // a dry run takes it too
	}
	if s.tls != "certManager" {
		want["ClusterRole metawire-webhook"+webhook] = []string{
			"admissionregistration.k8s.io/mutatingwebhookconfigurations zz-metawire-webhook list,watch,patch",
		}
	}
	return want
}

// gotGrants reads them from the objects, all but the role of the configured
// types. A role that is bound to nobody, or twice, is an error of its own in
// what it returns.
func gotGrants(objs []*unstructured.Unstructured) (grants, error) {
	bound := map[string][]string{}
	for _, o := range objs {
		if k := o.GetKind(); k != "ClusterRoleBinding" && k != "RoleBinding" {
			continue
		}
		b, err := find[rbacv1.RoleBinding](objs, o.GetKind(), o.GetName())
		if err != nil {
			return nil, err
		}
		role := b.RoleRef.Kind + " " + b.RoleRef.Name
		if b.Kind != b.RoleRef.Kind+"Binding" {
			role = b.Kind + " of " + role
		}
		for _, subject := range b.Subjects {
			bound[role] = append(bound[role], subject.Namespace+"/"+subject.Name)
		}
	}
	got := grants{}
	for _, o := range objs {
		if k := o.GetKind(); k != "ClusterRole" && k != "Role" {
			continue
		}
		if n := o.GetName(); o.GetKind() == "ClusterRole" && (n == "metawire-collector" || n == "metawire-inventory-types") {
			continue // the configured types
		}
		role, err := find[rbacv1.Role](objs, o.GetKind(), o.GetName())
		if err != nil {
			return nil, err
		}
		key := o.GetKind() + " " + o.GetName()
		to := strings.Join(bound[key], " ")
		for _, r := range role.Rules {
			rule := []string{strings.Join(r.APIGroups, ",") + "/" + strings.Join(r.Resources, ",")}
			if r.ResourceNames != nil {
				rule = append(rule, strings.Join(r.ResourceNames, ","))
			}
			rule = append(rule, strings.Join(r.Verbs, ","))
			got[key+" -> "+to] = append(got[key+" -> "+to], strings.Join(rule, " "))
		}
	}
	return got, nil
}

func checkOtherRoles(t *rapid.T, objs []*unstructured.Unstructured, s settings) {
	got, err := gotGrants(objs)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wantGrants(s), got); d != "" {
		t.Fatalf("permissions beside the configured types (-want +got):\n%s", d)
	}
}

// TestGrants: exactly these permissions, for each combination of what decides
// about them.
func TestGrants(t *testing.T) {
	ch := loadChart(t)
	for _, tls := range tlsSources {
		for _, authorization := range authorizations {
			for _, webhook := range []bool{true, false} {
				s := settings{
					stream: true, tls: tls, authorization: authorization, webhook: webhook,
					ports: [4]int{45000, 8081, 8080, 45001}, webhookPorts: [3]int{9443, 8081, 8080}, replicas: 2, plugin: plugins[0], namespaces: namespaceSelectors[0],
					add: []string{}, remove: []string{},
				}
				_, objs := mustRender(t, ch, s.values())
				got, err := gotGrants(objs)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(wantGrants(s), got); d != "" {
					t.Errorf("tls %s, authorization %s, webhook %t (-want +got):\n%s", tls, authorization, webhook, d)
				}
			}
		}
	}
}

// TestNobodyReadsSecrets: but those that are named.
func TestNobodyReadsSecrets(t *testing.T) {
	for name, values := range valueSets {
		_, objs := mustRender(t, loadChart(t), values)
		for _, o := range objs {
			if k := o.GetKind(); k != "ClusterRole" && k != "Role" {
				continue
			}
			role, err := find[rbacv1.Role](objs, o.GetKind(), o.GetName())
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range role.Rules {
				if slices.Contains(r.Resources, "secrets") && (len(r.ResourceNames) == 0 || role.Kind != "Role") {
					t.Errorf("%s: %s %s grants secrets: %v", name, role.Kind, role.Name, r)
				}
				if slices.Contains(r.Verbs, "create") && len(r.ResourceNames) > 0 {
					t.Errorf("%s: %s %s: creations are never granted by name: %v", name, role.Kind, role.Name, r)
				}
			}
		}
	}
}
