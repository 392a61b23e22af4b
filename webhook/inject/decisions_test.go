package inject_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

// TestDecisions holds the edge cases of the contract: what is different from a
// stock pod, what is decided, and what the result must show.
func TestDecisions(t *testing.T) {
	decide(t, map[string]decision{
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
		"configured by --option=": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Args = append(falco(p).Args, "--option=plugins[]={name: k8smeta}")
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
		}, cannot(inject.Command), nil},
		"the init container's rights": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).VolumeMounts[0].MountPropagation = ptr.To(corev1.MountPropagationHostToContainer)
		}, wired, func(p *corev1.Pod) (any, any) {
			c := ours(p)
			writable := 0 // ours, and Falco's that has a mount point in it
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
				[]any{2, wiring.Audience, true, true, false, []corev1.Capability{"ALL"}}
		}},
		"plaintext stream": {func(_ *corev1.Pod, s *inject.Settings) { s.CA = nil }, wired, func(p *corev1.Pod) (any, any) {
			_, has := p.Annotations[wiring.CAAnnotation]
			return []bool{has, task(p).TLS, slices.Contains(paths(falco(p).VolumeMounts), wiring.CADir)}, []bool{false, false, false}
		}},
		"pull secret already there": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		}, wired, func(p *corev1.Pod) (any, any) { return len(p.Spec.ImagePullSecrets), 1 }},
		"Kubernetes expands nothing in the task": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).Args = []string{"/usr/bin/falco", "-r", "$(FALCO_K8S_NODE_NAME)/rules"}
		}, wired, func(p *corev1.Pod) (any, any) {
			return strings.Contains(ours(p).Env[0].Value, "$$(FALCO_K8S_NODE_NAME)"), true
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
	})
}
