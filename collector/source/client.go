package source

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// pageSize bounds one page of a list where the API server does not stream
// lists.
const pageSize = 500

// client lists and watches one kind.
type client interface {
	list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error)
	watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// clients makes the client of each kind. They share one connection. There is no
// client-side rate limit: it would stretch a paged first list over minutes, and
// the API server has its own priority and fairness.
func clients(cfg *rest.Config, kinds []Kind) ([]client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	http, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("HTTP client for %s: %w", cfg.Host, err)
	}
	partial, err := metadata.NewForConfigAndClient(cfg, http)
	if err != nil {
		return nil, fmt.Errorf("metadata client for %s: %w", cfg.Host, err)
	}
	all := make([]client, len(kinds))
	for i, k := range kinds {
		if k.decode == nil {
			all[i] = partialClient{partial.Resource(k.Resource)}
			continue
		}
		c := rest.CopyConfig(cfg)
		gv := k.Resource.GroupVersion()
		c.GroupVersion, c.APIPath = &gv, "/apis"
		if gv.Group == "" {
			c.APIPath = "/api"
		}
		c.NegotiatedSerializer = codecs(k).WithoutConversion()
		c.ContentType = runtime.ContentTypeProtobuf
		r, err := rest.RESTClientForConfigAndClient(c, http)
		if err != nil {
			return nil, fmt.Errorf("client for %s: %w", k.Resource.Resource, err)
		}
		all[i] = slimClient{r, k}
	}
	return all, nil
}

// codecs decode the kind into its own slim types.
func codecs(k Kind) serializer.CodecFactory {
	s, gv := runtime.NewScheme(), k.Resource.GroupVersion()
	s.AddKnownTypeWithName(gv.WithKind(string(k.Kind)), k.decode.object)
	s.AddKnownTypeWithName(gv.WithKind(string(k.Kind)+"List"), k.decode.list)
	metav1.AddToGroupVersion(s, gv)
	return serializer.NewCodecFactory(s)
}

// partialClient decodes metadata only.
type partialClient struct{ metadata.Getter }

func (c partialClient) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	l, err := c.List(ctx, o)
	if err != nil {
		return nil, err
	}
	for i := range l.Items {
		l.Items[i].ObjectMeta = stripped(&l.Items[i].ObjectMeta)
	}
	return l, nil
}

func (c partialClient) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return c.Watch(ctx, o)
}

// slimClient decodes what the index needs, from protobuf.
type slimClient struct {
	rest *rest.RESTClient
	kind Kind
}

func (c slimClient) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return c.rest.Get().Resource(c.kind.Resource.Resource).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Get()
}

func (c slimClient) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return c.rest.Get().Resource(c.kind.Resource.Resource).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
}
