package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func newPermissions() *cobra.Command {
	var text string
	c := &cobra.Command{
		Use:   "permissions --rules JSON",
		Short: "Require the ServiceAccount to have the permissions that are configured",
		Long: `Ask the API server whether this pod's ServiceAccount may do what the rules say, in
all namespaces. Passes if it may do all of it. What it must never be able to do is
asked too: that is told, and whoever granted it will know why.`,
		Example: `  probe permissions --rules '[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]'`,
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&text, "rules", "", "rules of a ClusterRole, as `JSON` (required)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var rules []rbacv1.PolicyRule
		if err := json.Unmarshal([]byte(text), &rules); err != nil || len(rules) == 0 {
			return errors.Join(fmt.Errorf("--rules is %q, want an array of rules of a ClusterRole, one or more", text), err)
		}
		config, err := rest.InClusterConfig()
		if err != nil {
			return fmt.Errorf("reach the API server from this pod: %w", err)
		}
		config.QPS = -1 // a hundred questions, once
		api, err := kubernetes.NewForConfig(config)
		if err != nil {
			return fmt.Errorf("client for %s: %w", config.Host, err)
		}
		return permissions(c.Context(), c.OutOrStdout(), api, rules)
	}
	return c
}

// permissions passes, which is no error, if the caller may do all that the rules
// say.
func permissions(ctx context.Context, out io.Writer, api kubernetes.Interface, rules []rbacv1.PolicyRule) error {
	self, err := api.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("ask the API server who this is: %w", err)
	}
	fmt.Fprintf(out, "probe permissions: of %s\n", self.Status.UserInfo.Username)
	asked, lacks := 0, []string{}
	for _, r := range rules {
		for _, a := range questions(r) {
			may, err := mayI(ctx, api, a)
			if err != nil {
				return err
			}
			if asked++; !may {
				lacks = append(lacks, written(a))
			}
		}
		fmt.Fprintf(out, "  %s: %s\n", strings.Join(r.Verbs, ", "), strings.Join(r.Resources, ", ")+of(r.APIGroups))
	}
	for _, a := range []authorizationv1.ResourceAttributes{
		{Verb: "get", Resource: "secrets"}, {Verb: "create", Resource: "pods"}, {Verb: "create", Resource: "pods", Subresource: "exec"},
		{Verb: "escalate", Group: rbacv1.GroupName, Resource: "clusterroles"},
	} {
		may, err := mayI(ctx, api, a)
		if err != nil {
			return err
		}
		if may {
			fmt.Fprintf(out, "it may also %s, in all namespaces, which no part of the release grants: kubectl get clusterrolebindings -o wide shows who does\n", written(a))
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("%d of %d permissions are not there: %s: the release's ClusterRoles or their bindings were changed, and helm upgrade brings them back; metawire check says more", len(lacks), asked, strings.Join(lacks, ", "))
	}
	fmt.Fprintf(out, "PASS: all %d permissions that are configured are there\n", asked)
	return nil
}

// questions are what a rule allows, one by one.
func questions(r rbacv1.PolicyRule) (all []authorizationv1.ResourceAttributes) {
	for _, g := range r.APIGroups {
		for _, resource := range r.Resources {
			resource, sub, _ := strings.Cut(resource, "/")
			for _, v := range r.Verbs {
				all = append(all, authorizationv1.ResourceAttributes{Verb: v, Group: g, Resource: resource, Subresource: sub})
			}
		}
	}
	return all
}

func mayI(ctx context.Context, api kubernetes.Interface, a authorizationv1.ResourceAttributes) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &a}}
	answer, err := api.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask the API server whether this pod may %s: %w", written(a), err)
	}
	return answer.Status.Allowed, nil
}

// written is a permission as kubectl auth can-i takes it.
func written(a authorizationv1.ResourceAttributes) string {
	resource := a.Resource
	if a.Group != "" {
		resource += "." + a.Group
	}
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	return a.Verb + " " + resource
}

// of names API groups, but for the core's.
func of(groups []string) string {
	if g := strings.Join(groups, ", "); g != "" {
		return " of " + g
	}
	return ""
}
