package inject_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

const fragment = "config_files[]=" + wiring.FragmentFile

// ca is a PEM block; what is in it does not matter here.
const ca = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"

func settings() inject.Settings {
	return inject.Settings{
		Version: "1.2.3", Host: "metawire-collector.metawire.svc", Port: 45000, Addresses: []string{"10.96.0.9", "fd00::9"},
		CA: []byte(ca), Image: "ghcr.io/metawire/metawire:1.2.3", ImagePullPolicy: corev1.PullIfNotPresent,
		ImagePullSecrets: []string{"pull"}, Plugin: wiring.Plugin{Source: wiring.PluginRegistry, Reference: "ghcr.io/x/k8smeta"},
	}
}

// stock is a pod as Falco's own chart makes it.
func stock() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "falco-", Namespace: "falco", Labels: map[string]string{"app.kubernetes.io/name": "falco"}},
		Spec: corev1.PodSpec{
			DNSPolicy:      corev1.DNSClusterFirst,
			InitContainers: []corev1.Container{{Name: "falcoctl-artifact-install", Image: "falcosecurity/falcoctl:0.11.4"}},
			Containers: []corev1.Container{{
				Name: "falco", Image: "docker.io/falcosecurity/falco:0.43.1", Args: []string{"/usr/bin/falco"},
				Env: []corev1.EnvVar{
					{Name: "HOST_ROOT", Value: "/host"},
					{Name: "FALCO_K8S_NODE_NAME", ValueFrom: nodeName()},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "root-falco-fs", MountPath: "/root/.falco"},
					{Name: "rules", MountPath: "/etc/falco"},
					{Name: "config", MountPath: "/etc/falco/falco.yaml", SubPath: "falco.yaml"},
					{Name: "plugins", MountPath: "/usr/share/falco/plugins"},
					{Name: "proc", MountPath: "/host/proc"},
					{Name: "dev", MountPath: "/host/dev", ReadOnly: true},
				},
			}},
			Volumes: []corev1.Volume{{Name: "config"}, {Name: "rules"}, {Name: "root-falco-fs"}, {Name: "plugins"}, {Name: "proc"}, {Name: "dev"}},
		},
	}
}

func nodeName() *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}
}

// decided is what a case is about.
type decided struct {
	Outcome wiring.Outcome
	Code    inject.Code
}

// TestDecisions holds the edge cases: what is different from a stock pod, what
// is decided, and what the result must show.
func TestDecisions(t *testing.T) {
	wired := decided{wiring.Wired, inject.Done}
	left := func(c inject.Code) decided { return decided{wiring.StoodDown, c} }
	cannot := func(c inject.Code) decided { return decided{wiring.NotWired, c} }
	falco := func(p *corev1.Pod) *corev1.Container { return &p.Spec.Containers[0] }
	for name, c := range map[string]struct {
		change func(*corev1.Pod, *inject.Settings)
		want   decided
		shows  func(*corev1.Pod) (got, want any) // nil: nothing special
	}{
		"stock pod of Falco's chart": {nil, wired, func(p *corev1.Pod) (any, any) {
			return falco(p).Args, []string{"/usr/bin/falco", "-o", fragment}
		}},
		"no command and no args": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Args = nil }, wired, func(p *corev1.Pod) (any, any) {
			return falco(p).Args, []string{"/usr/bin/falco", "-o", fragment}
		}},
		"command and no args": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Command, falco(p).Args = []string{"falco"}, nil }, wired, func(p *corev1.Pod) (any, any) {
			return append(falco(p).Command, falco(p).Args...), []string{"falco", "-o", fragment}
		}},
		"options for the image's entrypoint": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Args = []string{"-A"} }, wired, nil},
		"custom -c": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Args = []string{"/usr/bin/falco", "-c", "/my/falco.yaml"}
			falco(p).VolumeMounts = append(falco(p).VolumeMounts, corev1.VolumeMount{Name: "config", MountPath: "/my"})
		}, wired, func(p *corev1.Pod) (any, any) {
			return slices.Contains(paths(ours(p).VolumeMounts), "/my"), true
		}},
		"the host's devices and processes are not shown": {nil, wired, func(p *corev1.Pod) (any, any) {
			return paths(ours(p).VolumeMounts), []string{
				wiring.GeneratedDir, wiring.TokenDir, wiring.CADir, "/root/.falco", "/etc/falco", "/etc/falco/falco.yaml", "/usr/share/falco/plugins",
			}
		}},
		"the token is the init container's alone": {nil, wired, func(p *corev1.Pod) (any, any) {
			return slices.Contains(paths(falco(p).VolumeMounts), wiring.TokenDir), false
		}},
		"our container is last": {nil, wired, func(p *corev1.Pod) (any, any) {
			return p.Spec.InitContainers[len(p.Spec.InitContainers)-1].Name, wiring.InitContainer
		}},
		"shell-wrapped":            {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Command = []string{"/bin/sh", "-c"} }, cannot(inject.Command), nil},
		"entrypoint of the user's": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Args = []string{"/start.sh"} }, cannot(inject.Command), nil},
		"options end with --":      {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Args = []string{"/usr/bin/falco", "--"} }, cannot(inject.Command), nil},
		"configured by -o": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Args = append(falco(p).Args, "-o", `plugins[]={"name":"k8smeta"}`)
		}, left(inject.Configured), nil},
		"configured by -o=": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Args = append(falco(p).Args, "-oload_plugins[]=k8smeta")
		}, left(inject.Configured), nil},
		"k8smeta in a file's name":    {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Args = append(falco(p).Args, "-r", "k8smeta.yaml") }, wired, nil},
		"Falco 0.40":                  {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Image = "falcosecurity/falco:0.40.0" }, cannot(inject.Version), nil},
		"Falco 0.38":                  {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Image = "falcosecurity/falco:0.38.2-debian" }, cannot(inject.Version), nil},
		"Falco 0.41":                  {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Image = "falcosecurity/falco:0.41.0" }, wired, nil},
		"Falco of an unknown version": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Image = "falcosecurity/falco:latest" }, wired, nil},
		"several containers": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "exporter", Image: "x/exporter:1"})
		}, wired, func(p *corev1.Pod) (any, any) {
			return p.Spec.Containers[1], corev1.Container{Name: "exporter", Image: "x/exporter:1"}
		}},
		"two Falcos": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second", Image: "falcosecurity/falco:0.43.1"})
		}, cannot(inject.Several), nil},
		"no Falco": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.Containers[0].Name, p.Spec.Containers[0].Image = "web", "nginx"
		}, left(inject.NotFalco), nil},
		"Falco as init container only": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.InitContainers[0].Name = "falco"
			p.Spec.Containers[0].Name, p.Spec.Containers[0].Image = "web", "nginx"
		}, left(inject.NotFalco), nil},
		"opted out": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Annotations = map[string]string{wiring.InjectAnnotation: "false"}
		}, left(inject.OptedOut), nil},
		"Windows": {func(p *corev1.Pod, _ *inject.Settings) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, cannot(inject.System), nil},
		"host network, cluster DNS first": {func(p *corev1.Pod, _ *inject.Settings) { p.Spec.HostNetwork = true }, wired, func(p *corev1.Pod) (any, any) {
			return p.Spec.HostAliases, []corev1.HostAlias{
				{IP: "10.96.0.9", Hostnames: []string{"metawire-collector.metawire.svc"}},
				{IP: "fd00::9", Hostnames: []string{"metawire-collector.metawire.svc"}},
			}
		}},
		"host network that resolves": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.HostNetwork, p.Spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet
		}, wired, func(p *corev1.Pod) (any, any) { return len(p.Spec.HostAliases), 0 }},
		"the node's DNS": {func(p *corev1.Pod, _ *inject.Settings) { p.Spec.DNSPolicy = corev1.DNSDefault }, wired, func(p *corev1.Pod) (any, any) {
			return len(p.Spec.HostAliases), 2
		}},
		"host network, address not known": {func(p *corev1.Pod, s *inject.Settings) {
			p.Spec.HostNetwork, s.Addresses = true, nil
		}, cannot(inject.Unresolved), nil},
		"node name missing": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).Env = nil }, wired, func(p *corev1.Pod) (any, any) {
			return falco(p).Env, []corev1.EnvVar{{Name: "METAWIRE_NODE_NAME", ValueFrom: nodeName()}}
		}},
		"node name a literal": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Env = []corev1.EnvVar{{Name: "FALCO_K8S_NODE_NAME", Value: "node-1"}}
		}, wired, func(p *corev1.Pod) (any, any) { return task(p).NodeVariable, "METAWIRE_NODE_NAME" }},
		"node name from the field": {nil, wired, func(p *corev1.Pod) (any, any) { return task(p).NodeVariable, "FALCO_K8S_NODE_NAME" }},
		"our variable is taken": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Env = []corev1.EnvVar{{Name: "METAWIRE_NODE_NAME", Value: "x"}}
		}, cannot(inject.Taken), nil},
		"our volume is taken": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "metawire-ca"})
		}, cannot(inject.Taken), nil},
		"our init container's name is taken": {func(p *corev1.Pod, _ *inject.Settings) { p.Spec.InitContainers[0].Name = wiring.InitContainer }, cannot(inject.Taken), nil},
		"the host's /run is mounted": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).VolumeMounts = append(falco(p).VolumeMounts, corev1.VolumeMount{Name: "run", MountPath: "/run/"})
		}, cannot(inject.Taken), nil},
		"a mount by subPathExpr": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).VolumeMounts[2].SubPathExpr = "$(HOST_ROOT)/falco.yaml"
		}, cannot(inject.Taken), nil},
		"a mount over our program": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).VolumeMounts = append(falco(p).VolumeMounts, corev1.VolumeMount{Name: "dev", MountPath: "/usr/local"}, corev1.VolumeMount{Name: "dev", MountPath: "/usr/local/bin/x"})
		}, wired, func(p *corev1.Pod) (any, any) {
			return slices.ContainsFunc(paths(ours(p).VolumeMounts), func(m string) bool { return strings.HasPrefix(m, "/usr/local") }), false
		}},
		"config_files set as a whole": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Args = append(falco(p).Args, "-o", "config_files=/a.yaml")
		}, left(inject.Configured), nil},
		"the init container's rights": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).VolumeMounts[0].MountPropagation = ptr.To(corev1.MountPropagationHostToContainer)
		}, wired, func(p *corev1.Pod) (any, any) {
			c := ours(p)
			writable := 0
			for _, m := range c.VolumeMounts {
				if !m.ReadOnly || m.MountPropagation != nil {
					writable++
				}
			}
			audience := ""
			for _, v := range p.Spec.Volumes {
				if v.Projected != nil {
					audience = v.Projected.Sources[0].ServiceAccountToken.Audience
				}
			}
			sc := c.SecurityContext
			return []any{writable, audience, *sc.RunAsNonRoot, *sc.ReadOnlyRootFilesystem, *sc.AllowPrivilegeEscalation, sc.Capabilities.Drop},
				[]any{1, wiring.Audience, true, true, false, []corev1.Capability{"ALL"}}
		}},
		"plaintext stream": {func(_ *corev1.Pod, s *inject.Settings) { s.CA = nil }, wired, func(p *corev1.Pod) (any, any) {
			_, has := p.Annotations[wiring.CAAnnotation]
			return []bool{has, task(p).TLS, slices.Contains(paths(falco(p).VolumeMounts), wiring.CADir)}, []bool{false, false, false}
		}},
		"pull secret already there": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		}, wired, func(p *corev1.Pod) (any, any) { return len(p.Spec.ImagePullSecrets), 1 }},
		"Kubernetes expands nothing in the task": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Args = []string{"/usr/bin/falco", "-r", "$(HOST_ROOT)/rules"}
		}, wired, func(p *corev1.Pod) (any, any) {
			return strings.Contains(ours(p).Env[0].Value, "$$(HOST_ROOT)"), true
		}},
		"another subscriber": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Annotations = map[string]string{wiring.InjectAnnotation: "true"}
			p.Spec.Containers[0] = corev1.Container{Name: "agent", Image: "x/agent:1"}
		}, decided{wiring.Subscriber, inject.Done}, func(p *corev1.Pod) (any, any) {
			return p.Spec.Containers[0].Env, []corev1.EnvVar{
				{Name: "METAWIRE_ENDPOINT", Value: "metawire-collector.metawire.svc:45000"},
				{Name: "METAWIRE_NODE_NAME", ValueFrom: nodeName()},
				{Name: "METAWIRE_CA_FILE", Value: wiring.CAFile},
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			pod, s := stock(), settings()
			if c.change != nil {
				c.change(pod, &s)
			}
			given := pod.DeepCopy()
			got, d := inject.Pod(pod, s)
			if diff := cmp.Diff(c.want, decided{d.Outcome, d.Code}); diff != "" {
				t.Fatalf("%s\n%s", d.Reason, diff)
			}
			if diff := cmp.Diff(given, pod); diff != "" {
				t.Errorf("the input has changed: %s", diff)
			}
			status, err := wiring.ParseStatus(got.Annotations[wiring.StatusAnnotation])
			if err != nil || status.Outcome != d.Outcome || status.Reason != d.Reason || status.Version != "1.2.3" {
				t.Errorf("status %+v, %v does not tell of %+v", status, err, d)
			}
			if c.shows != nil {
				got, want := c.shows(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
			holds(t, given, got, d, s)
		})
	}
}

// ours is the init container that was added.
func ours(p *corev1.Pod) corev1.Container {
	return p.Spec.InitContainers[len(p.Spec.InitContainers)-1]
}

// task is what the init container is told, as Kubernetes hands it on.
func task(p *corev1.Pod) (t wiring.Task) {
	if err := json.Unmarshal([]byte(strings.ReplaceAll(ours(p).Env[0].Value, "$$(", "$(")), &t); err != nil {
		return wiring.Task{NodeVariable: err.Error()}
	}
	return t
}

func paths(mounts []corev1.VolumeMount) (all []string) {
	for _, m := range mounts {
		all = append(all, m.MountPath)
	}
	return all
}

// holds checks what is true of every pod: to inject it again changes nothing,
// and without what we own the pod is the given one.
func holds(t *testing.T, given, got *corev1.Pod, d inject.Decision, s inject.Settings) {
	t.Helper()
	twice, again := inject.Pod(got, s)
	if diff := cmp.Diff(got, twice); diff != "" {
		t.Errorf("injected twice: %s", diff)
	}
	if d.Outcome != again.Outcome {
		t.Errorf("injected twice: %+v, then %+v", d, again)
	}
	stripped := got.DeepCopy()
	strip(stripped, given)
	want := given.DeepCopy()
	delete(want.Annotations, wiring.StatusAnnotation)
	if d.Outcome.Patched() {
		delete(want.Annotations, wiring.CAAnnotation)
	}
	if diff := cmp.Diff(normal(want), normal(stripped)); diff != "" {
		t.Errorf("what is not ours has changed: %s", diff)
	}
	if d.Code != inject.Done {
		return
	}
	unique(t, "volume", got.Spec.Volumes, func(v corev1.Volume) string { return v.Name })
	unique(t, "init container", got.Spec.InitContainers, func(c corev1.Container) string { return c.Name })
	for _, c := range append(slices.Clone(got.Spec.Containers), ours(got)) {
		unique(t, "mount path", c.VolumeMounts, func(m corev1.VolumeMount) string { return m.MountPath })
	}
}

func unique[T any](t *testing.T, what string, all []T, name func(T) string) {
	t.Helper()
	seen := map[string]bool{}
	for _, x := range all {
		if n := name(x); seen[n] && strings.Contains(n, "metawire") {
			t.Errorf("%s %q is there twice", what, n)
		}
		seen[name(x)] = true
	}
}

// strip takes out what Metawire owns.
func strip(p, given *corev1.Pod) {
	delete(p.Annotations, wiring.StatusAnnotation)
	if given.Annotations[wiring.CAAnnotation] == "" || p.Annotations[wiring.CAAnnotation] == ca {
		delete(p.Annotations, wiring.CAAnnotation)
	}
	if len(p.Spec.InitContainers) > len(given.Spec.InitContainers) {
		p.Spec.InitContainers = p.Spec.InitContainers[:len(given.Spec.InitContainers)]
	}
	p.Spec.Volumes = p.Spec.Volumes[:len(given.Spec.Volumes)]
	p.Spec.HostAliases = p.Spec.HostAliases[:len(given.Spec.HostAliases)]
	p.Spec.ImagePullSecrets = p.Spec.ImagePullSecrets[:len(given.Spec.ImagePullSecrets)]
	for i := range p.Spec.Containers {
		c, g := &p.Spec.Containers[i], given.Spec.Containers[i]
		c.Env, c.VolumeMounts = c.Env[:len(g.Env)], c.VolumeMounts[:len(g.VolumeMounts)]
		if n := len(c.Args) - 2; n >= 0 && c.Args[n] == "-o" && c.Args[n+1] == fragment {
			c.Args = c.Args[:n]
		}
		if len(g.Command)+len(g.Args) == 0 && cmp.Equal(c.Args, []string{"/usr/bin/falco"}) {
			c.Args = nil
		}
	}
}

// normal makes empty and missing the same, as JSON does.
func normal(p *corev1.Pod) string {
	data, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// FuzzPod takes any pod: it never panics, injecting twice changes nothing, and
// what is not ours stays.
func FuzzPod(f *testing.F) {
	for _, change := range []func(*corev1.Pod){
		func(*corev1.Pod) {},
		func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		func(p *corev1.Pod) {
			p.Spec.Containers[0] = corev1.Container{Name: "agent"}
			p.Annotations = map[string]string{wiring.InjectAnnotation: "true"}
		},
		func(p *corev1.Pod) { p.Annotations = map[string]string{wiring.StatusAnnotation: `{"outcome":"wired"}`} },
	} {
		p := stock()
		change(p)
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var pod corev1.Pod
		if json.Unmarshal(data, &pod) != nil {
			return
		}
		got, d := inject.Pod(&pod, settings())
		if !slices.Contains(inject.Codes(), d.Code) || d.Reason == "" {
			t.Errorf("decision %+v", d)
		}
		holds(t, &pod, got, d, settings())
	})
}
