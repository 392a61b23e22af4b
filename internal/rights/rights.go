// Package rights asks the API server who may do what, and says it in words.
package rights

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Right is something that one may do or not. Without a namespace it is meant in
// all of them, without a name of all objects.
type Right struct {
	Verb, Group, Resource, Sub string
	Namespace, Name            string
}

// Of returns the right to each of the verbs.
func Of(r Right, verbs ...string) (all []Right) {
	for _, v := range verbs {
		r.Verb = v
		all = append(all, r)
	}
	return all
}

// String writes it as kubectl auth can-i takes it.
func (r Right) String() string { return r.Verb + " " + r.object() }

func (r Right) object() string {
	s := r.Resource
	if r.Group != "" {
		s += "." + r.Group
	}
	if r.Sub != "" {
		s += "/" + r.Sub
	}
	if r.Name != "" {
		s += " " + r.Name
	}
	if r.Namespace != "" {
		s += " in namespace " + r.Namespace
	}
	return s
}

// Account is somebody known to the API server.
type Account struct {
	User   string
	Groups []string
}

// ServiceAccount returns the account of a ServiceAccount's user name,
// system:serviceaccount:NAMESPACE:NAME.
func ServiceAccount(user string) *Account {
	namespace, _, _ := strings.Cut(strings.TrimPrefix(user, "system:serviceaccount:"), ":")
	return &Account{user, []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}}
}

// atOnce bounds the questions that are open.
const atOnce = 16

// Missing asks which of the rights somebody has not got, and returns them in their
// order; who is nil for whoever asks. It blocks for a call each, 16 at once, and
// takes the right to create subjectaccessreviews, or for oneself none.
func Missing(ctx context.Context, api kubernetes.Interface, who *Account, all []Right) ([]Right, error) {
	may := make([]bool, len(all))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, r := range all {
		g.Go(func() (err error) {
			if may[i], err = ask(ctx, api, who, r); err != nil {
				err = fmt.Errorf("ask whether one may %s: %w", r, err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var missing []Right
	for i, r := range all {
		if !may[i] {
			missing = append(missing, r)
		}
	}
	return missing, nil
}

// Held asks which of them somebody has.
func Held(ctx context.Context, api kubernetes.Interface, who *Account, all []Right) ([]Right, error) {
	missing, err := Missing(ctx, api, who, all)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(r Right) bool { return slices.Contains(missing, r) }), nil
}

func ask(ctx context.Context, api kubernetes.Interface, who *Account, r Right) (bool, error) {
	attributes := &authorizationv1.ResourceAttributes{
		Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Sub, Namespace: r.Namespace, Name: r.Name,
	}
	if who == nil {
		answer, err := api.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes},
		}, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return answer.Status.Allowed, nil
	}
	answer, err := api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: who.User, Groups: who.Groups, ResourceAttributes: attributes},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}

// Unwanted are rights that no part of a release grants, and whose holder could
// take over the cluster.
func Unwanted() []Right {
	return []Right{
		{Verb: "get", Resource: "secrets"},
		{Verb: "create", Resource: "pods"}, {Verb: "delete", Resource: "pods"}, {Verb: "create", Resource: "pods", Sub: "exec"},
		{Verb: "patch", Group: "apps", Resource: "daemonsets"},
		{Verb: "update", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"}, {Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
	}
}

// Lines writes rights for people, those of one object together, in their order.
func Lines(all []Right) (lines []string) {
	verbs := map[string][]string{}
	var objects []string
	for _, r := range all {
		o := r.object()
		if verbs[o] == nil {
			objects = append(objects, o)
		}
		verbs[o] = append(verbs[o], r.Verb)
	}
	for _, o := range objects {
		lines = append(lines, strings.Join(verbs[o], " and ")+" "+o)
	}
	return lines
}

// maxListed bounds the objects that List names.
const maxListed = 15

// List writes them in one line, at most 15 objects.
func List(all []Right) string {
	lines := Lines(all)
	if more := len(lines) - maxListed; more > 0 {
		lines = append(lines[:maxListed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, ", ")
}
