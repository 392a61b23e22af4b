package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/version"
	"github.com/metawire/metawire/internal/wiring"
	webhookconfig "github.com/metawire/metawire/webhook/config"
	"github.com/metawire/metawire/webhook/inject"
)

// errFinding says that what was asked about is not as it should be; what that
// is was printed. It makes the exit code 2.
var errFinding = errors.New("not wired")

// errNotCalled ends the errors that say why nothing is done with any pod.
var errNotCalled = errors.New("so nothing wires pods")

// notCalled is what the webhook never says itself: the API server does not call it
// for any pod.
const notCalled inject.Code = "notCalled"

func newExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain",
		Short: "Say why a pod is wired to the collector, or is not, and who subscribes",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to explain: metawire explain pod NAMESPACE/NAME, or metawire explain subscribers")
		},
	}
	c.AddCommand(newExplainPod(), newExplainSubscribers())
	return c
}

// explainPod is the command's flags.
type explainPod struct {
	cluster cluster
	file    string
	output  *choice
}

func newExplainPod() *cobra.Command {
	c := &cobra.Command{
		Use:   "pod NAMESPACE/NAME | -f FILE",
		Short: "Say why a pod is wired to the collector and connected, or is not",
		Long: `Say what the webhook did with a pod when it was created, what the init container
did before Falco started, and what the webhook would do with the pod today. The
same code decides here and there. Every collector is asked for the pod's stream:
since when it is connected, what was sent, what is pending, and what it was refused
and why; one that cannot be asked is named. That takes the permissions that
metawire watch takes.

With -f, for a pod that does not exist yet: FILE holds a Pod, or an object with a
pod template such as a DaemonSet, in YAML or JSON ("-": standard input). No
cluster is asked; namespaces that the webhook leaves out are not known then.

Exit codes: 0 the pod is wired, or was given what a subscriber needs; 2 it is
not, whatever the reason; 1 error.`,
		Example: `  metawire explain pod falco/falco-x2x7z

  # Every Falco pod, as JSON
  kubectl -n falco get pods -o name | cut -d/ -f2 |
    xargs -I{} metawire explain pod falco/{} -o json

  # Before it is applied
  helm template falco falcosecurity/falco -s templates/daemonset.yaml | metawire explain pod -f -`,
		Args: cobra.MaximumNArgs(1),
	}
	var e explainPod
	e.cluster.flags(c)
	c.Flags().StringVarP(&e.file, "file", "f", "", "`FILE` with a pod, or an object with a pod template, that need not exist")
	e.output = outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		var (
			x   *explanation
			err error
		)
		switch {
		case (e.file == "") == (len(args) == 0):
			return errors.New("give a pod, NAMESPACE/NAME, or a file with -f")
		case e.file != "":
			x, err = explainFile(e.file, c.InOrStdin())
		default:
			x, err = e.running(c.Context(), args[0])
		}
		if err != nil {
			return err
		}
		if e.output.value == "json" {
			err = json.NewEncoder(c.OutOrStdout()).Encode(x)
		} else {
			err = x.print(c.OutOrStdout())
		}
		if err == nil && !x.Wired {
			err = errFinding
		}
		return err
	}
	return c
}

// elsewhere are the settings of a webhook of which nothing is known: its
// decisions are the same but for what depends on the cluster.
func elsewhere() inject.Settings {
	return inject.Settings{
		Version: version.Version, Host: "metawire-collector.metawire.svc", Port: 45000,
		Addresses: []string{"192.0.2.1"}, // of the documentation (RFC 5737): there is one, and which does not matter
		Image:     "ghcr.io/metawire/metawire:" + version.Version,
	}
}

// explainFile explains the pod that a file describes.
func explainFile(name string, stdin io.Reader) (*explanation, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	p, err := podIn(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	x := describe(p, elsewhere())
	if p.Namespace == metav1.NamespaceSystem { // whatever a cluster says: the chart always leaves it out
		x.Now = leaves(p.Namespace, "it always does")
	}
	x.Wired = x.Now.Outcome.Patched()
	return x, nil
}

// leaves is the decision on a pod of a namespace that the webhook leaves out.
func leaves(namespace, why string) decision {
	return decision{wiring.StoodDown, inject.OptedOut, fmt.Sprintf("the webhook leaves namespace %q out: %s", namespace, why), nil}
}

// podIn returns the first pod of a stream of documents, or the pod of the first
// template.
func podIn(in io.Reader) (*corev1.Pod, error) {
	for decoder := utilyaml.NewYAMLOrJSONDecoder(in, 4096); ; {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return nil, errors.New("there is no Pod in it, and no object with a pod template")
		}
		if err != nil {
			return nil, err
		}
		var object struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`

			Spec struct {
				Template    *corev1.PodTemplateSpec `json:"template"`
				JobTemplate *struct {
					Spec struct {
						Template *corev1.PodTemplateSpec `json:"template"`
					} `json:"spec"`
				} `json:"jobTemplate"`
			} `json:"spec"`
		}
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, err
		}
		template := object.Spec.Template
		if j := object.Spec.JobTemplate; j != nil {
			template = j.Spec.Template
		}
		switch {
		case object.Kind == "Pod":
			p := &corev1.Pod{}
			if err := json.Unmarshal(raw, p); err != nil {
				return nil, err
			}
			p.Namespace = namespaceOr(p.Namespace, metav1.NamespaceDefault)
			return p, nil
		case template != nil:
			p := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
			p.GenerateName, p.Namespace = object.Name+"-", namespaceOr(object.Namespace, metav1.NamespaceDefault)
			return p, nil
		}
	}
}

func namespaceOr(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}

// running explains a pod of the cluster.
func (e *explainPod) running(ctx context.Context, name string) (*explanation, error) {
	namespace, pod, ok := strings.Cut(name, "/")
	if !ok || namespace == "" || pod == "" {
		return nil, fmt.Errorf("%q is not NAMESPACE/NAME: write the pod with its namespace, such as falco/falco-x2x7z; -n is the namespace that Metawire is installed in", name)
	}
	found, _, err := e.cluster.find(ctx)
	if err != nil {
		return nil, err
	}
	p, err := found.Client().CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no pod %q in namespace %q: kubectl -n %s get pods", pod, namespace, namespace)
	}
	if err != nil {
		return nil, err
	}
	authorities, err := found.Authorities(ctx)
	if err != nil && found.TLS {
		return nil, err
	}
	s, err := settings(ctx, found, authorities)
	out := ""
	if err == nil {
		out, err = leftOut(ctx, found, namespace)
	}
	if err != nil && !errors.Is(err, errNotCalled) {
		return nil, err
	}
	x := describe(p, s)
	created := p.CreationTimestamp.Time
	marks := wiring.PodOf(p)
	x.Admitted, x.Status = &created, marks.Status
	if v, err := wiring.ParseVerdict(marks.Init.Message); err == nil && marks.Init.State == wiring.InitDone {
		x.Verdict = &v
	}
	switch {
	case err != nil:
		x.Now = decision{wiring.NotWired, notCalled, err.Error(), nil}
	case out != "":
		x.Now, marks.LeftOut = leaves(namespace, out), true
	}
	x.judge(marks, authorities)
	if p.Spec.NodeName != "" && found.Port != 0 {
		x.Streams = streamsOf(ctx, found, p)
		if !x.subscribes() && len(x.Streams.Open)+len(x.Streams.Refused) == 0 {
			x.Streams = nil // nobody expects any
		}
	}
	return x, nil
}

// settings are those of the cluster's webhook.
func settings(ctx context.Context, found *installation.Installation, authorities []byte) (inject.Settings, error) {
	s := elsewhere()
	s.Version, s.CA = found.Version, authorities
	file, err := found.Configuration(ctx, installation.Webhook)
	if errors.Is(err, installation.ErrNoConfiguration) {
		return s, fmt.Errorf("the release has no webhook (webhook.enabled is false), %w", errNotCalled)
	}
	if err != nil {
		return s, err
	}
	c, err := webhookconfig.Decode(file)
	if err != nil {
		return s, fmt.Errorf("the webhook's configuration is not one that this version knows (%s, metawire is %s): %w", found.Version, version.Version, err)
	}
	service, err := found.Client().CoreV1().Services(c.Stream.Service.Namespace).Get(ctx, c.Stream.Service.Name, metav1.GetOptions{})
	if err != nil {
		return s, err
	}
	s.Addresses = slices.DeleteFunc(service.Spec.ClusterIPs, func(ip string) bool { return ip == corev1.ClusterIPNone })
	s.Host, s.Port, s.Plugin = c.Stream.Host, c.Stream.Port, wiring.Plugin(c.Plugin)
	s.Image, s.ImagePullPolicy, s.ImagePullSecrets = c.Image.Name, corev1.PullPolicy(c.Image.PullPolicy), c.Image.PullSecrets
	return s, nil
}

// leftOut says by what the webhook leaves a namespace out, "" if it does not.
// errNotCalled is wrapped in the error if the API server calls none.
func leftOut(ctx context.Context, found *installation.Installation, namespace string) (string, error) {
	ns, err := found.Client().CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	selectors, err := found.NamespaceSelectors(ctx)
	if err != nil {
		return "", err
	}
	if len(selectors) == 0 {
		return "", fmt.Errorf("there is no MutatingWebhookConfiguration of the release, %w", errNotCalled)
	}
	for _, s := range selectors {
		if s.Matches(labels.Set(ns.Labels)) {
			return "", nil
		}
	}
	return fmt.Sprintf("its labels do not match the webhook's namespaceSelector (%s)", selectors[0]), nil
}
