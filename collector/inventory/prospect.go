package inventory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
)

// Prospect is a resource type before a run: one that is configured, or one that
// the API server serves besides.
type Prospect struct {
	Type

	Configured bool
	Outcome    Outcome // OK if it can be asked for; Absent, Failed
	Error      string  // why it is not OK, in a sentence; may be empty
}

// Prospects returns the types that a run with the options would list, and those
// that the API server serves besides, sorted by name. It lists nothing but
// CustomResourceDefinitions.
func Prospects(ctx context.Context, o Options) ([]Prospect, error) {
	client, err := discovery.NewDiscoveryClientForConfig(o.API)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", o.API.Host, err)
	}
	c, err := discover(ctx, client)
	if err != nil {
		return nil, err
	}
	configured := c.resolveAll(o.Types)
	if o.CustomResources {
		client, err := metadata.NewForConfig(o.API)
		if err != nil {
			return nil, fmt.Errorf("client for %s: %w", o.API.Host, err)
		}
		custom, _, err := c.custom(ctx, client, o.CustomResourceGroups, configured)
		if err != nil {
			return nil, err
		}
		configured = append(configured, custom...)
	}
	all, there := make([]Prospect, 0, len(c.types)), map[string]bool{}
	for _, f := range configured {
		there[f.Name] = true
		all = append(all, Prospect{Type: f.Type, Configured: true, Outcome: f.outcome, Error: f.err})
	}
	for _, t := range c.types {
		if !there[t.Name] {
			all = append(all, Prospect{Type: t, Outcome: OK})
		}
	}
	slices.SortFunc(all, func(a, b Prospect) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
