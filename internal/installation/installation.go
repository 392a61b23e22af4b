// Package installation finds a release of Metawire in a cluster and reaches its
// parts as a person can: through the API server, with that person's rights. It
// changes nothing.
package installation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/internal/wiring"
)

// The parts of a release: values of the label app.kubernetes.io/component.
const (
	Collector = "collector"
	Webhook   = "webhook"
	Inventory = "inventory"
	viewer    = "viewer"
)

const (
	componentLabel = "app.kubernetes.io/component"
	instanceLabel  = "app.kubernetes.io/instance"
	versionLabel   = "app.kubernetes.io/version"
)

// PartOf selects the objects of all releases.
const PartOf = "app.kubernetes.io/part-of=metawire"

// ErrNotFound says that there is no release, ErrSeveral that there are more than
// one.
var (
	ErrNotFound = errors.New("no Metawire is installed")
	ErrSeveral  = errors.New("several releases of Metawire are installed")
)

// Installation is a release in a cluster. Its methods ask the API server.
type Installation struct {
	Namespace string
	Release   string // as helm list writes it
	Version   string // of the chart's programs
	// HelmNamespace is where Helm keeps the release, which may be another one than
	// its objects are in; empty: it was not Helm that installed it.
	HelmNamespace string
	// Host and Port are the stream's within the cluster, TLS says whether it is
	// encrypted. Port is 0 if there is no stream, and Host is empty if there is no
	// collector, but a CronJob of the inventory alone.
	Host string
	Port int
	TLS  bool

	config *rest.Config
	api    kubernetes.Interface
}

// Find looks for the release in a namespace, in all of them if that is empty.
func Find(ctx context.Context, config *rest.Config, namespace string) (*Installation, error) {
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", config.Host, err)
	}
	where := "in any namespace"
	if namespace != "" {
		where = fmt.Sprintf("in namespace %q", namespace)
	}
	services, err := api.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{LabelSelector: PartOf + "," + componentLabel + "=" + Collector})
	switch {
	case apierrors.IsForbidden(err) && namespace == "":
		return nil, fmt.Errorf("look for Metawire's Service in all namespaces: %w; name its namespace: -n NAMESPACE", err)
	case err != nil:
		return nil, fmt.Errorf("look for Metawire's Service %s: %w", where, err)
	case len(services.Items) == 0:
		if services.Items, err = withoutStream(ctx, api, namespace); err != nil {
			return nil, fmt.Errorf("look for what there is of Metawire %s: %w", where, err)
		}
	}
	switch len(services.Items) {
	case 0:
		return nil, fmt.Errorf("%w %s of %s: helm install metawire charts/metawire -n metawire --create-namespace", ErrNotFound, where, config.Host)
	case 1:
		return newInstallation(ctx, config, api, &services.Items[0])
	}
	var names []string
	for _, s := range services.Items {
		names = append(names, s.Namespace+"/"+s.Labels[instanceLabel])
	}
	return nil, fmt.Errorf("%w: %s; choose one by its namespace: -n NAMESPACE", ErrSeveral, strings.Join(names, ", "))
}

// At is the release of that name, without asking whether there is one: Host, Port,
// TLS and Version are not known.
func At(config *rest.Config, namespace, release string) (*Installation, error) {
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", config.Host, err)
	}
	return &Installation{Namespace: namespace, Release: release, config: config, api: api}, nil
}

// withoutStream finds releases that are a CronJob of the inventory and nothing
// else: by its configuration, which stands for the Service that they have not.
func withoutStream(ctx context.Context, api kubernetes.Interface, namespace string) (all []corev1.Service, err error) {
	maps, err := api.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: PartOf + "," + componentLabel + "=" + Inventory})
	if err != nil {
		return nil, err
	}
	collectors, err := api.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: PartOf + "," + componentLabel + "=" + Collector})
	if err != nil {
		return nil, err
	}
	for _, m := range maps.Items {
		streams := slices.ContainsFunc(collectors.Items, func(d appsv1.Deployment) bool {
			return d.Namespace == m.Namespace && d.Labels[instanceLabel] == m.Labels[instanceLabel]
		})
		if _, ok := m.Data[configurationKey(Inventory)]; ok && !streams { // else its Service is gone
			all = append(all, corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations}})
		}
	}
	return all, nil
}

func newInstallation(ctx context.Context, config *rest.Config, api kubernetes.Interface, s *corev1.Service) (*Installation, error) {
	i := &Installation{
		Namespace: s.Namespace, Release: s.Labels[instanceLabel], Version: s.Labels[versionLabel], HelmNamespace: HelmNamespaceOf(s),
		config: config, api: api,
	}
	if s.Name == "" {
		return i, nil
	}
	i.Host = s.Name + "." + s.Namespace + ".svc"
	for _, p := range s.Spec.Ports {
		if p.Name == "grpc" {
			i.Port = int(p.Port)
		}
	}
	// Of the configuration only what is needed: a command line of another
	// version need not know the rest.
	file, err := i.Configuration(ctx, Collector)
	if err != nil {
		return nil, err
	}
	var c struct {
		Stream struct {
			TLS struct {
				Mode string `json:"mode"`
			} `json:"tls"`
		} `json:"stream"`
	}
	if err := yaml.Unmarshal(file, &c); err != nil {
		return nil, fmt.Errorf("read the collector's configuration in namespace %q: %w", i.Namespace, err)
	}
	i.TLS = c.Stream.TLS.Mode != "disabled"
	return i, nil
}

// ReleaseOf is the release that an object is of, as helm list writes it.
func ReleaseOf(o metav1.Object) string { return o.GetLabels()[instanceLabel] }

// HelmNamespaceOf is the namespace of the Helm release that an object is of, empty if
// it is of none. Helm writes it on all that it makes.
func HelmNamespaceOf(o metav1.Object) string {
	return o.GetAnnotations()["meta.helm.sh/release-namespace"]
}

// Client is the client that the installation was found with.
func (i *Installation) Client() kubernetes.Interface { return i.api }

// Addr is the stream's address within the cluster.
func (i *Installation) Addr() string { return net.JoinHostPort(i.Host, strconv.Itoa(i.Port)) }

// Only selects the objects of a part of this release.
func (i *Installation) Only(component string) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: labels.Set{instanceLabel: i.Release, componentLabel: component}.String()}
}

// All selects the objects of this release.
func (i *Installation) All() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: PartOf + "," + instanceLabel + "=" + i.Release}
}

// Pods returns the pods of a part that are neither finished, such as those that were
// evicted, nor about to end; ready ones first.
func (i *Installation) Pods(ctx context.Context, component string) ([]corev1.Pod, error) {
	list, err := i.api.CoreV1().Pods(i.Namespace).List(ctx, i.Only(component))
	if err != nil {
		return nil, fmt.Errorf("list the %s's pods in namespace %q: %w", component, i.Namespace, err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	})
	slices.SortStableFunc(pods, func(a, b corev1.Pod) int {
		switch ra, rb := Ready(&a), Ready(&b); {
		case ra && !rb:
			return -1
		case rb && !ra:
			return 1
		}
		return 0
	})
	return pods, nil
}

// Ready reports whether a pod says so.
func Ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// ErrNoConfiguration says that a part of a release is not installed: it has no
// configuration.
var ErrNoConfiguration = errors.New("there is no such ConfigMap")

// Configuration returns the configuration file of a part.
func (i *Installation) Configuration(ctx context.Context, component string) ([]byte, error) {
	key := configurationKey(component)
	list, err := i.api.CoreV1().ConfigMaps(i.Namespace).List(ctx, i.Only(component))
	if err != nil {
		return nil, fmt.Errorf("list the %s's ConfigMap in namespace %q: %w", component, i.Namespace, err)
	}
	for _, m := range list.Items {
		if file, ok := m.Data[key]; ok {
			return []byte(file), nil
		}
	}
	return nil, fmt.Errorf("look for the %s's %s in namespace %q: %w", component, key, i.Namespace, ErrNoConfiguration)
}

func configurationKey(component string) string {
	if component == Inventory { // its pods are collectors
		component = Collector
	}
	return component + ".yaml"
}

// CABundles returns what the API server verifies each webhook of the release
// with; an empty one if nobody has filled it.
func (i *Installation) CABundles(ctx context.Context) ([][]byte, error) {
	webhooks, err := i.Webhooks(ctx)
	var all [][]byte
	for _, h := range webhooks {
		all = append(all, h.ClientConfig.CABundle)
	}
	return all, err
}

// Webhooks returns those of the release's MutatingWebhookConfigurations.
func (i *Installation) Webhooks(ctx context.Context) ([]admissionv1.MutatingWebhook, error) {
	configurations, err := i.api.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, i.Only(Webhook))
	if err != nil {
		return nil, fmt.Errorf("list the MutatingWebhookConfigurations of release %s: %w", i.Release, err)
	}
	var all []admissionv1.MutatingWebhook
	for _, c := range configurations.Items {
		all = append(all, c.Webhooks...)
	}
	return all, nil
}

// Authorities returns the PEM of the certificates that the stream is verified
// with: what the API server trusts the webhook by, which everybody may read, or
// else what the Secret of the certificates says.
func (i *Installation) Authorities(ctx context.Context) ([]byte, error) {
	bundles, err := i.CABundles(ctx)
	for _, bundle := range bundles {
		if len(wiring.Fingerprints(bundle)) > 0 {
			return bundle, nil
		}
	}
	secrets, err2 := i.api.CoreV1().Secrets(i.Namespace).List(ctx, i.Only(Collector))
	if err2 == nil {
		for _, s := range secrets.Items {
			if bundle := s.Data["ca.crt"]; len(wiring.Fingerprints(bundle)) > 0 {
				return bundle, nil
			}
		}
	}
	bundle, err3 := i.mounted(ctx)
	if len(wiring.Fingerprints(bundle)) > 0 {
		return bundle, nil
	}
	none := errors.New("cannot find the authority of the stream's certificate: neither a MutatingWebhookConfiguration nor a Secret of the release holds one (metawire watch takes it by --tls-ca FILE)")
	return nil, errors.Join(none, err, err2, err3)
}

// mounted returns the authorities in the Secret that the collectors have their
// certificate from, where that is not the release's own.
func (i *Installation) mounted(ctx context.Context) ([]byte, error) {
	list, err := i.api.AppsV1().Deployments(i.Namespace).List(ctx, i.Only(Collector))
	if err != nil {
		return nil, fmt.Errorf("list the collector's Deployment in namespace %q: %w", i.Namespace, err)
	}
	for _, d := range list.Items {
		for _, v := range d.Spec.Template.Spec.Volumes {
			if v.Name != "tls" || v.Secret == nil {
				continue
			}
			s, err := i.api.CoreV1().Secrets(i.Namespace).Get(ctx, v.Secret.SecretName, metav1.GetOptions{})
			if err != nil {
				return nil, fmt.Errorf("read the certificate's Secret: %w", err)
			}
			return s.Data["ca.crt"], nil
		}
	}
	return nil, nil
}

// NamespaceSelectors returns which namespaces' pods the webhook sees, for each
// webhook of the release.
func (i *Installation) NamespaceSelectors(ctx context.Context) ([]labels.Selector, error) {
	webhooks, err := i.Webhooks(ctx)
	if err != nil {
		return nil, err
	}
	var all []labels.Selector
	for _, h := range webhooks {
		s, err := metav1.LabelSelectorAsSelector(h.NamespaceSelector)
		if err != nil {
			return nil, fmt.Errorf("namespaceSelector of webhook %s: %w", h.Name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// Token returns a token of the release's ServiceAccount for people, good for
// ten minutes: it may read every node's stream, and nothing of the API.
func (i *Installation) Token(ctx context.Context) (string, error) {
	accounts, err := i.api.CoreV1().ServiceAccounts(i.Namespace).List(ctx, i.Only(viewer))
	if err != nil {
		return "", fmt.Errorf("find the ServiceAccount for people in namespace %q: %w", i.Namespace, err)
	}
	if len(accounts.Items) == 0 {
		return "", fmt.Errorf("there is no ServiceAccount for people (%s=%s) in namespace %q", componentLabel, viewer, i.Namespace)
	}
	name, seconds := accounts.Items[0].Name, int64(600)
	token, err := i.api.CoreV1().ServiceAccounts(i.Namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{wiring.Audience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ask for a token of ServiceAccount %s/%s: %w", i.Namespace, name, err)
	}
	return token.Status.Token, nil
}
