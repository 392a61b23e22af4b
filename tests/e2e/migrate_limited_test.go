package e2e_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// limited returns the kubeconfig of somebody who may read what a plan needs and,
// of the rest, exactly what the plan says that he lacks.
func (w *world) limited(t *testing.T, name, to string, args ...string) string {
	t.Helper()
	name = "limited-" + name
	config, err := clientcmd.LoadFromFile(w.cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.Impersonate = name
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	rule := func(group string, verbs []string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
	}
	read := []string{"get", "list"}
	w.grant(t, name, "", []rbacv1.PolicyRule{
		rule("", []string{"get"}, "namespaces"), rule("apiextensions.k8s.io", []string{"list"}, "customresourcedefinitions"),
		// Who may not give what he has not got, makes no roles.
		rule(rbacv1.GroupName, []string{"get", "bind", "escalate"}, "clusterroles", "roles"),
		rule(rbacv1.GroupName, []string{"get"}, "clusterrolebindings", "rolebindings"),
	})
	here := args[slices.Index(args, "--namespace")+1]
	w.grant(t, name, here, []rbacv1.PolicyRule{rule("", read, "secrets"), rule("", []string{"get"}, "configmaps", "services", "serviceaccounts"), rule("apps", read, "deployments"), rule("batch", read, "cronjobs")})
	for _, ns := range []string{here, to} {
		w.createNamespace(t, ns)
	}
	lacks := regexp.MustCompile(`^\s*(?:- )?([a-z]+) ([a-z/]+)(?:\.([a-z0-9.-]+))?(?: in namespace (\S+))?$`)
	for range 2 { // what is not there yet is tried only with what it takes
		out, _ := w.migration(t, append([]string{"--dry-run", "--kubeconfig", kubeconfig}, args...)...)
		_, list, found := strings.Cut(out, "you lack these permissions:\n")
		if !found {
			return kubeconfig
		}
		rules := map[string][]rbacv1.PolicyRule{}
		for line := range strings.Lines(list) {
			m := lacks.FindStringSubmatch(strings.TrimRight(line, "\n"))
			if m == nil {
				break
			}
			rules[m[4]] = append(rules[m[4]], rule(m[3], []string{m[1]}, m[2]))
		}
		t.Logf("%s lacks %v", name, rules)
		for ns, list := range rules {
			w.grant(t, name, ns, list)
		}
	}
	out, code := w.migration(t, append([]string{"--dry-run", "--kubeconfig", kubeconfig}, args...)...)
	if code != 2 {
		t.Fatalf("with all that was asked for, a dry run ended with %d:\n%s", code, out)
	}
	return kubeconfig
}

// grant lets somebody do more, in a namespace or, if that is empty, everywhere.
func (w *world) grant(t *testing.T, who, ns string, rules []rbacv1.PolicyRule) {
	t.Helper()
	meta := metav1.ObjectMeta{GenerateName: who + "-", Namespace: ns}
	subject := []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: who}}
	var err error
	if ns == "" {
		var role *rbacv1.ClusterRole
		if role, err = w.api.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err == nil {
			_, err = w.api.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name}}, metav1.CreateOptions{})
		}
	} else {
		var role *rbacv1.Role
		if role, err = w.api.RbacV1().Roles(ns).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err == nil {
			_, err = w.api.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name}}, metav1.CreateOptions{})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
