package check

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes"
)

// right is something that one may do or not.
type right struct {
	verb, group, resource, sub string
	namespace, name            string
}

// object is what the right is of, as kubectl auth can-i takes it.
func (r right) object() string {
	s := r.resource
	if r.group != "" {
		s += "." + r.group
	}
	if r.sub != "" {
		s += "/" + r.sub
	}
	if r.name != "" {
		s += " " + r.name
	}
	if r.namespace != "" {
		s += " in namespace " + r.namespace
	}
	return s
}

func (r right) String() string { return r.verb + " " + r.object() }

func (r right) attributes() *authorizationv1.ResourceAttributes {
	return &authorizationv1.ResourceAttributes{
		Verb: r.verb, Group: r.group, Resource: r.resource, Subresource: r.sub, Namespace: r.namespace, Name: r.name,
	}
}

// atOnce bounds the questions that are open.
const atOnce = 16

// review asks whether somebody may do all that; who is nil for whoever asks.
func review(ctx context.Context, api clientset.Interface, who *subject, rights []right) ([]bool, error) {
	may := make([]bool, len(rights))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, r := range rights {
		g.Go(func() (err error) {
			if may[i], err = ask(ctx, api, who, r); err != nil {
				return fmt.Errorf("ask whether one may %s: %w", r, err)
			}
			return nil
		})
	}
	return may, g.Wait()
}

func ask(ctx context.Context, api clientset.Interface, who *subject, r right) (bool, error) {
	if who == nil {
		answer, err := api.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: r.attributes()},
		}, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return answer.Status.Allowed, nil
	}
	answer, err := api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: who.user, Groups: who.groups, ResourceAttributes: r.attributes()},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}

// missing returns the rights that are not there.
func missing(rights []right, may []bool) (all []right) {
	for i, r := range rights {
		if !may[i] {
			all = append(all, r)
		}
	}
	return all
}

// maxRights bounds the rights that are named.
const maxRights = 15

// listed writes rights in a line, those of one object together.
func listed(rights []right) string {
	verbs := map[string]string{}
	var objects []string
	for _, r := range rights {
		o := r.object()
		if verbs[o] == "" {
			objects = append(objects, o)
			verbs[o] = r.verb
		} else {
			verbs[o] += " and " + r.verb
		}
	}
	more := len(objects) - maxRights
	if more > 0 {
		objects = objects[:maxRights]
	}
	for i, o := range objects {
		objects[i] = verbs[o] + " " + o
	}
	if more > 0 {
		objects = append(objects, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(objects, ", ")
}

// ownRights: what the checks read, the person may.
func ownRights(ctx context.Context, t *Target) finding {
	api, err := clientset.NewForConfig(t.Config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	rights := []right{
		{verb: "list", resource: "pods"},
		{verb: "list", resource: "namespaces"},
		{verb: "list", group: "admissionregistration.k8s.io", resource: "mutatingwebhookconfigurations"},
		{verb: "create", group: "authorization.k8s.io", resource: "subjectaccessreviews"},
		{verb: "create", resource: "pods"},
	}
	for _, r := range []right{
		{verb: "list", resource: "configmaps"}, {verb: "list", resource: "services"}, {verb: "list", resource: "secrets"},
		{verb: "list", group: "apps", resource: "deployments"},
		{verb: "list", group: "discovery.k8s.io", resource: "endpointslices"},
		{verb: "list", group: "networking.k8s.io", resource: "networkpolicies"},
		{verb: "create", resource: "pods", sub: "portforward"},
		{verb: "create", resource: "serviceaccounts", sub: "token"},
	} {
		r.namespace = t.Namespace
		rights = append(rights, r)
	}
	may, err := review(ctx, api, nil, rights)
	if err != nil {
		return unread(err, "create selfsubjectaccessreviews, as everybody who is logged in may")
	}
	if no := missing(rights, may); len(no) > 0 {
		return warn("what needs these rights fails or is passed over below: use a kubeconfig of somebody who has them, such as a cluster-admin", "you may not: "+listed(no))
	}
	return fine()
}
