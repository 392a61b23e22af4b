package migrate

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// permissions says in words what the roles of the old release allowed, and what
// those of the new one will.
func permissions(had, will []*unstructured.Unstructured) []string {
	lines := append(rolesOf("before", had), rolesOf("after", will)...)
	before, after := secretsOf(had), secretsOf(will)
	if before == after {
		return append(lines, "Secrets, before and after: "+after)
	}
	return append(lines, "Secrets, before: "+before, "Secrets, after: "+after)
}

// rolesOf says what each role allows.
func rolesOf(when string, all []*unstructured.Unstructured) []string {
	var lines []string
	for _, u := range all {
		for _, r := range rulesOf(u) {
			lines = append(lines, fmt.Sprintf("%s, %s: %s", when, named(u), ruleText(r)))
		}
	}
	return lines
}

func rulesOf(u *unstructured.Unstructured) []rbacv1.PolicyRule {
	if u.GetKind() != "ClusterRole" && u.GetKind() != "Role" {
		return nil
	}
	role, err := as[rbacv1.ClusterRole](u) // a Role has the same rules
	if err != nil {
		return nil // the API server will say so
	}
	return role.Rules
}

func ruleText(r rbacv1.PolicyRule) string {
	var what []string
	switch {
	case len(r.NonResourceURLs) > 0:
		what = r.NonResourceURLs
	case slices.Contains(r.Resources, "*") && slices.Contains(r.APIGroups, "*"):
		what = []string{"everything there is, the contents of Secrets too"}
	default:
		for _, g := range r.APIGroups {
			for _, resource := range r.Resources {
				what = append(what, resourceText(resource, g))
			}
		}
	}
	text := strings.Join(r.Verbs, ", ") + " " + strings.Join(what, ", ")
	if len(r.ResourceNames) > 0 {
		text += " named " + strings.Join(r.ResourceNames, ", ")
	}
	return text
}

func resourceText(resource, group string) string {
	switch group {
	case "*":
		return resource + " of every group"
	case "":
		return resource
	}
	return resource + "." + group
}

// secretsOf says whose contents can be read.
func secretsOf(all []*unstructured.Unstructured) string {
	everywhere, some := false, []string{}
	for _, u := range all {
		for _, r := range rulesOf(u) {
			if !covers(r.APIGroups, "") || !covers(r.Resources, "secrets") || !slices.ContainsFunc(r.Verbs, reads) {
				continue
			}
			switch {
			case len(r.ResourceNames) > 0:
				some = append(some, r.ResourceNames...)
			case u.GetKind() == "Role":
				some = append(some, "all of namespace "+u.GetNamespace())
			default:
				everywhere = true
			}
		}
	}
	slices.Sort(some)
	switch some = slices.Compact(some); {
	case everywhere:
		return "all can be read, in every namespace"
	case len(some) > 0:
		return "only these can be read: " + strings.Join(some, ", ")
	}
	return "none can be read"
}

func covers(list []string, one string) bool {
	return slices.Contains(list, one) || slices.Contains(list, "*")
}

func reads(verb string) bool { return slices.Contains([]string{"get", "list", "watch", "*"}, verb) }
