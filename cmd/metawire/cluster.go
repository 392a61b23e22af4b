package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		if gone := absent(rules); gone != "" && clientcmd.IsEmptyConfig(err) {
			err = errors.New(gone)
		} else if gone != "" {
			err = fmt.Errorf("%w (%s)", err, gone)
		}
		return nil, false, fmt.Errorf("no access to a cluster: %w; name a kubeconfig: --kubeconfig FILE", err)
	}
	config.UserAgent = "metawire"
	own := os.Getenv("KUBERNETES_SERVICE_HOST")
	return config, own != "" && config.BearerTokenFile != "" && strings.Contains(config.Host, own), nil
}

// absent names the files that a cluster is looked for in by default, and that are
// not there: client-go passes over them.
func absent(rules *clientcmd.ClientConfigLoadingRules) string {
	if rules.ExplicitPath != "" { // client-go's error names it
		return ""
	}
	var gone []string
	for _, file := range rules.Precedence {
		if _, err := os.Stat(file); file != "" && errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, file)
		}
	}
	switch {
	case len(gone) == 0:
		return ""
	case os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "":
		return clientcmd.RecommendedConfigPathEnvVar + " is not set, and there is no file " + strings.Join(gone, ", ")
	}
	return clientcmd.RecommendedConfigPathEnvVar + " names what is not there: " + strings.Join(gone, ", ")
}

// unknownNode says that there is no node of a name; nothing if there is one, or if
// the user may not know.
func unknownNode(ctx context.Context, found *installation.Installation, name string) string {
	_, err := found.Client().CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return ""
	}
	return fmt.Sprintf("there is no node %q: kubectl get nodes lists those that there are", name)
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
