package check

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/version"
)

// configuration is what is needed of the collector's configuration file, which may
// be of another version: unknown keys are passed over.
type configuration struct {
	Stream struct {
		Enabled       bool   `json:"enabled"`
		Address       string `json:"address"`
		Authorization string `json:"authorization"`
		TLS           struct {
			Mode   string `json:"mode"`
			Secret struct {
				Name string `json:"name"`
			} `json:"secret"`
		} `json:"tls"`
		Tickets struct {
			Secret struct {
				Name string `json:"name"`
			} `json:"secret"`
		} `json:"tickets"`
	} `json:"stream"`
	Report struct {
		// UnwiredPods says that there is a webhook.
		UnwiredPods       bool                 `json:"unwiredPods"`
		NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	} `json:"report"`
}

// The way in which certificates come that needs no Secret of the user's.
const selfManaged = "selfManaged"

// read reads the collector's configuration. A release without collectors has none.
func (c *configuration) read(ctx context.Context, found *installation.Installation) error {
	*c = configuration{}
	if found.Host == "" {
		return nil
	}
	file, err := found.Configuration(ctx, installation.Collector)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(file, c); err != nil {
		return fmt.Errorf("read the collector's configuration in namespace %q: %w", found.Namespace, err)
	}
	return nil
}

// webhookConfiguration is what is needed of the webhook's.
type webhookConfiguration struct {
	Configuration string `json:"configuration"`
	Stream        struct {
		Host string `json:"host"`
		Port int    `json:"port"`
	} `json:"stream"`
	Image struct {
		Name string `json:"name"`
	} `json:"image"`
}

func (t *Target) webhookConfiguration(ctx context.Context) (c webhookConfiguration, err error) {
	file, err := t.found.Configuration(ctx, installation.Webhook)
	if err != nil {
		return c, err
	}
	if err := yaml.Unmarshal(file, &c); err != nil {
		return c, errors.Join(errors.New("read the webhook's configuration"), err)
	}
	return c, nil
}

// reinstall says how to bring back what was taken from the release.
func (t *Target) reinstall() string { return t.again(t.found.HelmNamespace, t.found.Release) }

// again says how a release's objects are made as its chart has them.
func (t *Target) again(helmNamespace, release string) string {
	how := "apply its manifests again: kubectl apply --server-side --force-conflicts -f metawire.yaml"
	if helmNamespace != "" {
		how = fmt.Sprintf("install it again as it was installed: helm -n %s upgrade %s %s --reset-then-reuse-values", helmNamespace, release, t.chart())
	}
	return how
}

// chart is where the release's chart is, for helm: in the checkout that this command
// was built of, or with the releases. Who installed it knows whether it came from
// elsewhere.
func (t *Target) chart() string {
	of := t.Version
	if t.found != nil && t.found.Version != "" {
		of = t.found.Version // not an upgrade by the way, nor a downgrade
	}
	if t.Version == version.Dev || of == version.Dev {
		return "charts/metawire"
	}
	return "oci://ghcr.io/metawire/charts/metawire --version " + strings.TrimPrefix(of, "v")
}

// logs is the command that shows the log of a part of the release.
func (t *Target) logs(component string) string {
	return fmt.Sprintf("kubectl -n %s logs -l %s", t.found.Namespace, t.found.Only(component).LabelSelector)
}

// install is the command that installs a release.
func (t *Target) install() string {
	return "helm install metawire " + t.chart() + " -n metawire --create-namespace"
}
