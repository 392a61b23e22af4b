package check

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"
)

// oldest is the oldest Kubernetes that is supported.
const oldest = "1.31"

func apiServer(_ context.Context, t *Target) ([]string, string) {
	client, err := discovery.NewDiscoveryClientForConfig(t.Config)
	if err != nil {
		return []string{err.Error()}, "name a kubeconfig that works: --kubeconfig FILE"
	}
	info, err := client.ServerVersion()
	if err != nil {
		return []string{err.Error()}, "kubectl version must work with the same kubeconfig and context"
	}
	found, err := version.ParseGeneric(info.GitVersion)
	if err != nil {
		return []string{err.Error()}, "is " + t.Config.Host + " a Kubernetes API server?"
	}
	details := []string{fmt.Sprintf("Kubernetes %s at %s", info.GitVersion, t.Config.Host)}
	if found.LessThan(version.MustParseGeneric(oldest)) {
		return details, "Metawire is tested with Kubernetes " + oldest + " and later"
	}
	return details, ""
}
