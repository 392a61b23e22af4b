package check

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// oldest is the oldest Kubernetes that is supported.
const oldest = "1.31"

func apiServer(_ context.Context, t *Target) finding {
	config := rest.CopyConfig(t.Config)
	config.Timeout = patience // discovery knows no context
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fail("name a kubeconfig that works: --kubeconfig FILE", err.Error())
	}
	info, err := client.ServerVersion()
	if err != nil {
		return fail("kubectl version must work with the same kubeconfig and context", err.Error())
	}
	found, err := version.ParseGeneric(info.GitVersion)
	if err != nil {
		return fail("is "+t.Config.Host+" a Kubernetes API server?", err.Error())
	}
	detail := fmt.Sprintf("Kubernetes %s at %s", info.GitVersion, t.Config.Host)
	if found.LessThan(version.MustParseGeneric(oldest)) {
		return fail("Metawire needs Kubernetes "+oldest+" or later", detail)
	}
	return fine(detail)
}
