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
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/internal/rights"
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
	var configured []rights.Right
	for _, r := range rules {
		configured = append(configured, granted(r)...)
		fmt.Fprintf(out, "  %s: %s\n", strings.Join(r.Verbs, ", "), strings.Join(r.Resources, ", ")+of(r.APIGroups))
	}
	missing, err := rights.Missing(ctx, api, nil, configured)
	if err != nil {
		return err
	}
	extra, err := rights.Held(ctx, api, nil, rights.Unwanted())
	if err != nil {
		return err
	}
	if len(extra) > 0 {
		fmt.Fprintf(out, "it may also %s, in all namespaces, which no part of the release grants: kubectl get clusterrolebindings -o wide shows who does\n", rights.List(extra))
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d of %d permissions are not there: %s: the release's ClusterRoles or their bindings were changed, and helm upgrade brings them back; metawire check says more", len(missing), len(configured), rights.List(missing))
	}
	fmt.Fprintf(out, "PASS: all %d permissions that are configured are there\n", len(configured))
	return nil
}

// granted are what a rule allows, one by one.
func granted(r rbacv1.PolicyRule) (all []rights.Right) {
	for _, g := range r.APIGroups {
		for _, resource := range r.Resources {
			resource, sub, _ := strings.Cut(resource, "/")
			all = append(all, rights.Of(rights.Right{Group: g, Resource: resource, Sub: sub}, r.Verbs...)...)
		}
	}
	return all
}

// of names API groups, but for the core's.
func of(groups []string) string {
	if g := strings.Join(groups, ", "); g != "" {
		return " of " + g
	}
	return ""
}
