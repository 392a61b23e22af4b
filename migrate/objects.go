package migrate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	yamlreader "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// Object names an object of the API.
type Object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

func named(u *unstructured.Unstructured) Object {
	return Object{u.GetAPIVersion(), u.GetKind(), u.GetNamespace(), u.GetName()}
}

// objects reaches objects of any kind.
type objects struct {
	client dynamic.Interface
	mapper meta.RESTMapper
}

// manifest decodes what Helm rendered. Namespaced objects without a namespace are
// the release's.
func (o *objects) manifest(text, namespace string) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	r := yamlreader.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read a manifest: %w", err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			return nil, fmt.Errorf("read a manifest: %w", err)
		}
		if len(u.Object) == 0 {
			continue
		}
		m, err := o.mapping(u)
		switch {
		case meta.IsNoMatchError(err): // a kind that has gone since
			if u.GetNamespace() == "" {
				u.SetNamespace(namespace)
			}
		case err != nil:
			return nil, err
		case m.Scope.Name() == meta.RESTScopeNameRoot:
			u.SetNamespace("")
		case u.GetNamespace() == "":
			u.SetNamespace(namespace)
		}
		all = append(all, u)
	}
}

// mapping returns how the API server serves an object's kind. An object of a
// version that has gone (batch/v1beta1, in an old release's manifest) becomes one
// of the version that is served instead.
func (o *objects) mapping(u *unstructured.Unstructured) (*meta.RESTMapping, error) {
	gvk := u.GroupVersionKind()
	m, err := o.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		if m, err := o.mapper.RESTMapping(gvk.GroupKind()); err == nil {
			u.SetAPIVersion(m.GroupVersionKind.GroupVersion().String())
			return m, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named(u), err)
	}
	return m, nil
}

// at returns where objects like this one are.
func (o *objects) at(u *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	m, err := o.mapping(u)
	if err != nil {
		return nil, err
	}
	r := o.client.Resource(m.Resource)
	if u.GetNamespace() == "" {
		return r, nil
	}
	return r.Namespace(u.GetNamespace()), nil
}

// live returns the object as it is now, nil if there is none.
func (o *objects) live(ctx context.Context, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	r, err := o.at(u)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now, err := r.Get(ctx, u.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", named(u), err)
	}
	return now, nil
}

// create makes an object, unless it is there. With dryRun nothing is kept, and
// that it is there is an error.
func (o *objects) create(ctx context.Context, u *unstructured.Unstructured, dryRun bool) error {
	r, err := o.at(u)
	if err != nil {
		return err
	}
	options := metav1.CreateOptions{FieldManager: manager, FieldValidation: metav1.FieldValidationStrict}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err = r.Create(ctx, u, options)
	if apierrors.IsAlreadyExists(err) && !dryRun {
		now, err := o.live(ctx, u)
		if err != nil || now != nil && now.GetDeletionTimestamp() == nil {
			return err
		}
		if err := o.gone(ctx, u); err != nil { // it is on its way out
			return err
		}
		return o.create(ctx, u, dryRun)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", named(u), err)
	}
	return nil
}

// remove deletes an object and what it owns, and waits until it is gone. None is
// no error.
func (o *objects) remove(ctx context.Context, u *unstructured.Unstructured) error {
	r, err := o.at(u)
	if meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	foreground := metav1.DeletePropagationForeground
	err = r.Delete(ctx, u.GetName(), metav1.DeleteOptions{PropagationPolicy: &foreground})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", named(u), err)
	}
	return o.gone(ctx, u)
}

// gone waits until an object is not there.
func (o *objects) gone(ctx context.Context, u *unstructured.Unstructured) error {
	return until(ctx, fmt.Sprintf("%s is gone", named(u)), func(ctx context.Context) (bool, error) {
		now, err := o.live(ctx, u)
		return now == nil, err
	})
}

// stays reports whether an object outlives its release: because it says so, or
// because of what would go with it.
func stays(u *unstructured.Unstructured) (why string) {
	switch {
	case u.GetAnnotations()["helm.sh/resource-policy"] == "keep":
		return "helm.sh/resource-policy says so"
	case u.GetKind() == "Namespace", u.GetKind() == "CustomResourceDefinition":
		return "others may use it"
	}
	return ""
}

// change reads the object, lets edit change it and writes it back; again when
// somebody else wrote in between. None is an error.
func (o *objects) change(ctx context.Context, u *unstructured.Unstructured, edit func(*unstructured.Unstructured) error) error {
	r, err := o.at(u)
	if err != nil {
		return err
	}
	for {
		now, err := r.Get(ctx, u.GetName(), metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("read %s: %w", named(u), err)
		}
		if err := edit(now); err != nil {
			return fmt.Errorf("change %s: %w", named(u), err)
		}
		_, err = r.Update(ctx, now, metav1.UpdateOptions{FieldManager: manager})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("change %s: %w", named(u), err)
		}
		return nil
	}
}

// resource is the plural and group of an object's kind.
func (o *objects) resource(u *unstructured.Unstructured) (schema.GroupResource, error) {
	m, err := o.mapping(u)
	if err != nil {
		return schema.GroupResource{}, err
	}
	return m.Resource.GroupResource(), nil
}

// portable strips an object of what only the API server may set, so that it can be
// made anew.
func portable(live *unstructured.Unstructured) *unstructured.Unstructured {
	u := live.DeepCopy()
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(u.Object, "status")
	address, _, _ := unstructured.NestedString(u.Object, "spec", "clusterIP")
	if u.GetKind() == "Service" && address != corev1.ClusterIPNone {
		for _, field := range addressFields() {
			unstructured.RemoveNestedField(u.Object, "spec", field)
		}
	}
	return u
}

// addressFields are those of a Service that the API server fills, each time anew.
func addressFields() []string { return []string{"clusterIP", "clusterIPs", "healthCheckNodePort"} }

// until waits for a condition; the error says which one and for how long.
func until(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	began := time.Now()
	err := wait.PollUntilContextCancel(ctx, 250*time.Millisecond, true, done)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("not within %s: %s: %w", time.Since(began).Round(time.Second), what, context.Cause(ctx))
	}
	return err
}
