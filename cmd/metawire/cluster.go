package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metawire/metawire/internal/installation"
)

// cluster is where a command looks for Metawire.
type cluster struct {
	kubeconfig, context string
	namespace           string // of Metawire; empty: it is looked for
}

// flags adds what names the cluster to a command.
func (k *cluster) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "`file` with the clusters to choose from (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&k.context, "context", "", "`name` of the kubeconfig's context (default: the current one)")
	f.StringVarP(&k.namespace, "namespace", "n", "", "`namespace` that Metawire is installed in (default: it is looked for in all)")
}

// config reads how to reach the API server; inside says that this is a pod of
// that cluster.
func (k *cluster) config() (config *rest.Config, inside bool, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.kubeconfig
	config, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: k.context}).ClientConfig()
	if err != nil {
		return nil, false, fmt.Errorf("no access to a cluster: %w; name a kubeconfig: --kubeconfig FILE", err)
	}
	config.UserAgent = "metawire"
	own := os.Getenv("KUBERNETES_SERVICE_HOST")
	return config, own != "" && config.BearerTokenFile != "" && strings.Contains(config.Host, own), nil
}

// find returns the release.
func (k *cluster) find(ctx context.Context) (i *installation.Installation, inside bool, err error) {
	config, inside, err := k.config()
	if err != nil {
		return nil, false, err
	}
	i, err = installation.Find(ctx, config, k.namespace)
	return i, inside, err
}
