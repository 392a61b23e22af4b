package release

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// getter gives Helm the access that the command has, in the way that Helm asks
// for it. It writes no files.
type getter struct {
	config    *rest.Config
	namespace string
	discover  func() (discovery.CachedDiscoveryInterface, error)
}

func newGetter(config *rest.Config, namespace string) *getter {
	return &getter{config, namespace, sync.OnceValues(func() (discovery.CachedDiscoveryInterface, error) {
		d, err := discovery.NewDiscoveryClientForConfig(config)
		if err != nil {
			return nil, err
		}
		return memory.NewMemCacheClient(d), nil
	})}
}

// ToRESTConfig is part of Helm's interface, as are the following.
func (g *getter) ToRESTConfig() (*rest.Config, error) { return rest.CopyConfig(g.config), nil }

func (g *getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	return g.discover()
}

func (g *getter) ToRESTMapper() (meta.RESTMapper, error) {
	d, err := g.discover()
	if err != nil {
		return nil, err
	}
	return restmapper.NewDeferredDiscoveryRESTMapper(d), nil
}

func (g *getter) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	overrides := &clientcmd.ConfigOverrides{Context: clientcmdapi.Context{Namespace: g.namespace}}
	return clientcmd.NewDefaultClientConfig(clientcmdapi.Config{}, overrides)
}
