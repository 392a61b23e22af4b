package installation

import (
	"context"
	"errors"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"
)

// ErrNoInventory says that a release sends none.
var ErrNoInventory = errors.New("the release has no inventory: inventory.enabled is false")

// ErrNoPart says that a part of a release, which should be there, is not.
var ErrNoPart = errors.New("a part of the release is not there")

// Sender is who sends a release's inventory, and what of its configuration
// clients need to know.
type Sender struct {
	// CronJob makes a pod for each run; nil: the collectors send.
	CronJob *batchv1.CronJob

	// Schedule and TimeZone say when runs begin, Jitter up to how much later, as a
	// duration; empty: the collector's default.
	Schedule             string   `json:"schedule"`
	TimeZone             string   `json:"timeZone"`
	Jitter               string   `json:"jitter"`
	Resources            []string `json:"resources"`
	CustomResources      bool     `json:"customResources"`
	CustomResourceGroups []string `json:"customResourceGroups"`
	State                struct {
		Namespace string `json:"namespace"`
		Lease     string `json:"lease"`
		Report    string `json:"report"`
		// Index begins the names of the ConfigMaps of what was acknowledged; empty:
		// there are none.
		Index string `json:"index"`
	} `json:"state"`
	Redaction struct {
		// Secret holds the key of the digests; without a name there is none.
		Secret struct {
			Name string `json:"name"`
		} `json:"secret"`
	} `json:"redaction"`
}

// Sender finds it out. ErrNoInventory is wrapped in the error if nobody sends.
func (i *Installation) Sender(ctx context.Context) (*Sender, error) {
	for _, component := range []string{Collector, Inventory} {
		file, err := i.Configuration(ctx, component)
		if errors.Is(err, ErrNoConfiguration) { // no collectors, or no CronJob
			continue
		}
		if err != nil {
			return nil, err
		}
		var c struct {
			Inventory struct {
				Sender

				Enabled bool `json:"enabled"`
			} `json:"inventory"`
		}
		if err := yaml.Unmarshal(file, &c); err != nil {
			return nil, fmt.Errorf("read the %s's configuration in namespace %q: %w", component, i.Namespace, err)
		}
		s := &c.Inventory.Sender
		if c.Inventory.Enabled && component == Inventory {
			s.CronJob, err = i.cronJob(ctx)
		}
		if c.Inventory.Enabled {
			return s, err
		}
	}
	return nil, fmt.Errorf("release %s in namespace %q: %w", i.Release, i.Namespace, ErrNoInventory)
}

func (i *Installation) cronJob(ctx context.Context) (*batchv1.CronJob, error) {
	list, err := i.api.BatchV1().CronJobs(i.Namespace).List(ctx, i.Only(Inventory))
	if err != nil {
		return nil, fmt.Errorf("list the inventory's CronJob in namespace %q: %w", i.Namespace, err)
	}
	if len(list.Items) == 0 {
		return nil, fmt.Errorf("%w: the CronJob of the inventory in namespace %s", ErrNoPart, i.Namespace)
	}
	return &list.Items[0], nil
}

// Account returns the user name of the ServiceAccount that the sender runs as.
func (i *Installation) Account(ctx context.Context, s *Sender) (string, error) {
	if s.CronJob != nil {
		return i.user(s.CronJob.Spec.JobTemplate.Spec.Template.Spec.ServiceAccountName), nil
	}
	return i.AccountOf(ctx, Collector)
}

// AccountOf returns the user name of the ServiceAccount that the pods of a part's
// Deployment run as.
func (i *Installation) AccountOf(ctx context.Context, component string) (string, error) {
	list, err := i.api.AppsV1().Deployments(i.Namespace).List(ctx, i.Only(component))
	if err != nil {
		return "", fmt.Errorf("list the %s's Deployment in namespace %q: %w", component, i.Namespace, err)
	}
	if len(list.Items) == 0 {
		return "", fmt.Errorf("%w: the Deployment of the %s in namespace %s", ErrNoPart, component, i.Namespace)
	}
	return i.user(list.Items[0].Spec.Template.Spec.ServiceAccountName), nil
}

func (i *Installation) user(account string) string {
	return "system:serviceaccount:" + i.Namespace + ":" + account
}
