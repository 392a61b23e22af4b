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
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/version"
	"github.com/metawire/metawire/internal/wiring"
	webhookconfig "github.com/metawire/metawire/webhook/config"
	"github.com/metawire/metawire/webhook/inject"
)

// patience is the collector's: for so long our init container may take.
const patience = 2 * time.Minute

// errFinding says that what was asked about is not as it should be; what that
// is was printed. It makes the exit code 2.
var errFinding = errors.New("not wired")

func newExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain",
		Short: "Say why a pod is wired to the collector, or is not",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to explain: metawire explain pod NAMESPACE/NAME")
		},
	}
	c.AddCommand(newExplainPod())
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
		Short: "Say why a pod is wired to the collector, or is not",
		Long: `Say what the webhook did with a pod when it was created, what the init container
did before Falco started, and what the webhook would do with the pod today. The
same code decides here and there.

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

// explanation is what is known of a pod.
type explanation struct {
	Pod       string `json:"pod"` // namespace/name
	Node      string `json:"node,omitempty"`
	Container string `json:"container,omitempty"` // Falco's
	Image     string `json:"image,omitempty"`
	Falco     string `json:"falcoVersion,omitempty"`
	// Wired says that nothing is missing for it to subscribe.
	Wired bool `json:"wired"`
	// State and Message are what the collector says of a running Falco pod.
	State   wiring.State `json:"state,omitempty"`
	Message string       `json:"message,omitempty"`
	// Admitted is when a pod was created, Status what the webhook did then, and
	// Verdict what the init container did.
	Admitted *time.Time      `json:"admitted,omitempty"`
	Status   *wiring.Status  `json:"status,omitempty"`
	Verdict  *wiring.Verdict `json:"verdict,omitempty"`
	// Now is what the webhook would do with the pod as it is today.
	Now decision `json:"now"`
}

// decision is an inject.Decision.
type decision struct {
	Outcome wiring.Outcome `json:"outcome"`
	Code    inject.Code    `json:"code"`
	Reason  string         `json:"reason"`
	// Adds is what the patch adds to the pod.
	Adds []string `json:"adds,omitempty"`
}

// describe fills in what a pod's specification tells.
func describe(p *corev1.Pod, s inject.Settings) *explanation {
	x := &explanation{Pod: p.Namespace + "/" + p.Name, Node: p.Spec.NodeName}
	if p.Name == "" {
		x.Pod = p.Namespace + "/" + p.GenerateName + "*"
	}
	for _, c := range p.Spec.Containers {
		if falco.Is(c.Name, c.Image) {
			x.Container, x.Image = c.Name, c.Image
			if v := falco.Version(c.Image); v != nil {
				x.Falco = v.String()
			}
			break
		}
	}
	patched, d := inject.Pod(p, s)
	x.Now = decision{d.Outcome, d.Code, d.Reason, added(p, patched)}
	return x
}

// added names what a patch has added.
func added(before, after *corev1.Pod) []string {
	var all []string
	news := func(what string, had, has []string) {
		for _, name := range has {
			if !slices.Contains(had, name) {
				all = append(all, what+" "+name)
			}
		}
	}
	news("init container", names(before.Spec.InitContainers), names(after.Spec.InitContainers))
	volumes := func(p *corev1.Pod) (all []string) {
		for _, v := range p.Spec.Volumes {
			all = append(all, v.Name)
		}
		return all
	}
	news("volume", volumes(before), volumes(after))
	for i := range before.Spec.Containers {
		b, a := &before.Spec.Containers[i], &after.Spec.Containers[i]
		if len(a.Args) > len(b.Args) {
			all = append(all, fmt.Sprintf("arguments of container %s: %s", a.Name, strings.Join(a.Args[len(b.Args):], " ")))
		}
		env := func(c *corev1.Container) (all []string) {
			for _, e := range c.Env {
				all = append(all, e.Name)
			}
			return all
		}
		news("variable of container "+a.Name+":", env(b), env(a))
	}
	aliases := func(p *corev1.Pod) (all []string) {
		for _, h := range p.Spec.HostAliases {
			for _, name := range h.Hostnames {
				all = append(all, name+" for "+h.IP)
			}
		}
		return all
	}
	news("host alias", aliases(before), aliases(after))
	return all
}

func names(containers []corev1.Container) (all []string) {
	for _, c := range containers {
		all = append(all, c.Name)
	}
	return all
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
	x.Wired = x.Now.Outcome.Patched()
	return x, nil
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
		return nil, fmt.Errorf("%q is not NAMESPACE/NAME", name)
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
	if err != nil {
		return nil, err
	}
	x := describe(p, s)
	created := p.CreationTimestamp.Time
	marks := wiring.PodOf(p)
	x.Admitted, x.Status = &created, marks.Status
	if v, err := wiring.ParseVerdict(marks.Init.Message); err == nil && marks.Init.State == wiring.InitDone {
		x.Verdict = &v
	}
	if out, err := leftOut(ctx, found, namespace); err != nil {
		return nil, err
	} else if out != "" {
		x.Now, marks.LeftOut = decision{wiring.StoodDown, inject.OptedOut, out, nil}, true
	}
	x.judge(marks, authorities)
	return x, nil
}

// judge says what is with a running pod.
func (x *explanation) judge(marks wiring.Pod, authorities []byte) {
	if x.Container == "" {
		x.Wired = marks.Status != nil && marks.Status.Outcome == wiring.Subscriber
		return
	}
	f := wiring.Judge{Now: time.Now(), Patience: patience, Authorities: wiring.Fingerprints(authorities)}.Pod(marks)
	x.State, x.Message = f.State, f.Message
	x.Wired = f.State == wiring.StateWired || f.State == wiring.StateNoTicket
}

// settings are those of the cluster's webhook.
func settings(ctx context.Context, found *installation.Installation, authorities []byte) (inject.Settings, error) {
	s := elsewhere()
	s.Version, s.CA = found.Version, authorities
	file, err := found.Configuration(ctx, installation.Webhook)
	if err != nil {
		return s, fmt.Errorf("the webhook is not installed (webhook.enabled), so nothing wires pods: %w", err)
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

// leftOut says why the webhook sees no pod of a namespace, "" if it does.
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
		return "there is no MutatingWebhookConfiguration of the release, so nothing wires pods", nil
	}
	for _, s := range selectors {
		if s.Matches(labels.Set(ns.Labels)) {
			return "", nil
		}
	}
	return fmt.Sprintf("the webhook leaves namespace %q out: its labels do not match the webhook's namespaceSelector (%s)", namespace, selectors[0]), nil
}

// print writes the explanation for people.
func (x *explanation) print(out io.Writer) error {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s "+format+"\n", append([]any{what}, args...)...)
	}
	fmt.Fprintf(&b, "Pod %s", x.Pod)
	if x.Node != "" {
		fmt.Fprintf(&b, " on node %s", x.Node)
	}
	fmt.Fprintln(&b)
	switch {
	case x.Container == "":
		line("Falco", "none of its containers")
	case x.Falco == "":
		line("Falco", "container %q, %s (its tag is no version)", x.Container, x.Image)
	default:
		line("Falco", "container %q, %s", x.Container, x.Image)
	}
	if x.Admitted != nil {
		at := x.Admitted.Local().Format(time.DateTime)
		if x.Status == nil {
			line("admission", "%s, not seen by the webhook", at)
		} else {
			line("admission", "%s, %s by webhook %s: %s", at, x.Status.Outcome, x.Status.Version, x.Status.Reason)
		}
	}
	if x.Verdict != nil {
		line("init", "%s", x.Verdict.Reason)
	}
	if x.State != "" {
		line("state", "%s", x.State)
	}
	if x.Status == nil || x.Status.Outcome != x.Now.Outcome { // else it was said
		line("today", "the webhook would say %s: %s", x.Now.Outcome, x.Now.Reason)
		for _, a := range x.Now.Adds {
			line("", "+ %s", a)
		}
	}
	if x.Message != "" {
		fmt.Fprintf(&b, "\n%s\n", x.Message)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
