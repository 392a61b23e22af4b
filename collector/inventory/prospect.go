package inventory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Prospect is a resource type before a run: one that is configured, or one that
// the API server serves besides.
type Prospect struct {
	Type

	Configured bool
	Custom     bool    // configured by customResources alone, not by its name
	Outcome    Outcome // OK if it can be asked for; Absent, Failed
	Error      string  // why it is not OK, in a sentence; may be empty
}

// Prospects returns the types of a configuration and those that the API server
// serves besides, sorted by name. It lists nothing.
func Prospects(ctx context.Context, api *rest.Config, names []string, customResources bool) ([]Prospect, error) {
	client, err := discovery.NewDiscoveryClientForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", api.Host, err)
	}
	c, err := discover(ctx, client)
	if err != nil {
		return nil, err
	}
	configured := c.resolveAll(names)
	if customResources {
		client, err := metadata.NewForConfig(api)
		if err != nil {
			return nil, fmt.Errorf("client for %s: %w", api.Host, err)
		}
		custom, err := c.custom(ctx, client, configured)
		if err != nil {
			return nil, err
		}
		configured = append(configured, custom...)
	}
	all, there := make([]Prospect, 0, len(c.types)), map[string]bool{}
	for _, f := range configured {
		there[f.Name] = true
		all = append(all, Prospect{Type: f.Type, Configured: true, Custom: f.custom, Outcome: f.outcome, Error: f.err})
	}
	for _, t := range c.types {
		if !there[t.Name] {
			all = append(all, Prospect{Type: t, Outcome: OK})
		}
	}
	slices.SortFunc(all, func(a, b Prospect) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
